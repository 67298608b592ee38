"""`/docs` and `/redoc` in a real Chromium: they work under their policy and ask nobody but the gateway."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from app.factory import create_app
from tb_simulator.demo import SampleDevices
from tb_simulator.server import Simulator
from tests.browser import PATIENCE_MS, Window, chromium, open_window
from tests.conftest import SettingsFactory
from tests.documentation.stages import DEMO_KEY
from tests.documented import DOCUMENT
from tests.serving import serve

pytestmark = pytest.mark.timeout(240)
METHODS = {"get", "post", "put", "patch", "delete"}
OPERATIONS = {
    operation["operationId"]: operation
    for item in DOCUMENT["paths"].values()
    for method, operation in item.items()
    if method in METHODS
}


@pytest.fixture
async def address(simulator: Simulator, make_settings: SettingsFactory) -> AsyncIterator[str]:
    async with SampleDevices(simulator.world), serve(create_app(make_settings(api_key=DEMO_KEY))) as url:
        yield url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    async with chromium() as browser:
        yield browser


async def open_page(browser: Browser, url: str) -> Window:
    """Open a page whose policy lets no script run but files of the gateway's own."""
    window = await open_window(browser, viewport={"width": 1280, "height": 900})
    answer = await window.page.goto(url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    return window


def check_quiet(window: Window, address: str) -> None:
    assert window.faults == []
    assert window.hosts <= {urlsplit(address).netloc, ""}  # "" are pictures and workers made on the page


async def opened(page: Page, operation_id: str) -> Locator:
    """Open an operation of Swagger UI and press "Try it out"."""
    tag = OPERATIONS[operation_id]["tags"][0]
    operation = page.locator(f"#operations-{tag}-{operation_id}")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    return operation


async def execute(operation: Locator, status: int) -> str:
    """Press "Execute" and return the body of the answer, which has this status."""
    await operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    await expect(answer.locator(".response-col_status")).to_contain_text(str(status))
    return await answer.locator(".response-col_description pre").first.inner_text()


async def test_authorize_and_try_it_out(address: str, browser: Browser) -> None:
    window = await open_page(browser, f"{address}/docs")
    page = window.page
    await expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))

    listing = await opened(page, "list_devices")
    assert "X-API-Key" in await execute(listing, 401)
    # Chromium itself reports a refused call on the console.
    assert all("401" in fault for fault in window.faults)
    window.faults.clear()

    await page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".modal-ux")
    await dialog.locator("input").fill(DEMO_KEY)
    await dialog.get_by_role("button", name="Apply credentials").click()
    await dialog.get_by_role("button", name="Close").click()

    assert "Demo Kitchen" in await execute(listing, 200)

    making = await opened(page, "create_device")
    await making.locator("textarea").first.fill('{"name": "made in the documentation"}')
    assert "made in the documentation" in await execute(making, 201)
    check_quiet(window, address)


async def test_redoc_shows_the_whole_document(address: str, browser: Browser) -> None:
    window = await open_page(browser, f"{address}/redoc")
    for operation_id, operation in OPERATIONS.items():
        section = window.page.locator(f'[id="tag/{operation["tags"][0]}/operation/{operation_id}"]')
        await expect(section).to_contain_text(operation["summary"])
    check_quiet(window, address)
