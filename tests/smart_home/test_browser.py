"""The page in a real Chromium: what people do, and what their browser never gets to see."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect

from tb_simulator.demo import CLAIM_CODES, ROOMS, SILENT_CODE, SILENT_ROOM, SampleDevices
from tests.browser import PATIENCE_MS, Window, chromium, open_window
from tests.smart_home.conftest import GATEWAY_KEY, PASSWORD, Product

pytestmark = [
    # The page knows nothing of the database.
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(240),
]
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    async with chromium() as browser:
        yield browser


@dataclass
class Visit(Window):
    """A browser window, and what went wrong or passed over the wire in it."""

    url: str = ""
    seen: list[str] = field(default_factory=list)

    async def sign_up(self, name: str) -> None:
        page = self.page
        await page.goto(self.url)
        await page.get_by_role("button", name="Sign up").click()
        await page.get_by_label("Your name").fill(name)
        await page.get_by_label("E-mail address").fill(f"{name.lower()}@example.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.locator("#account-form button[type=submit]").click()
        await expect(page.locator("#who")).to_have_text(name)

    async def add_home(self, name: str = "Villa") -> None:
        await self.page.locator("#add-home").click()
        await self.fill_dialog(Name=name)
        await expect(self.page.locator("#home-name")).to_have_text(name)

    async def add_room(self, name: str, device: str, code: str) -> None:
        await self.page.locator("#add-room").click()
        await self.fill_dialog(**{"Name of the room": name, "Device": device, "Claim code": code})
        await expect(self.room(name)).to_be_visible()

    async def fill_dialog(self, **fields: str) -> None:
        dialog = self.page.get_by_role("dialog")
        for label, value in fields.items():
            await dialog.get_by_label(label, exact=True).fill(value)
        await dialog.locator("button[type=submit]").click()

    def room(self, name: str) -> Any:
        heading = self.page.get_by_role("heading", name=name, exact=True)
        return self.page.locator("article.room").filter(has=heading)

    async def last_point_of(self, name: str) -> int:
        return int(await self.room(name).locator(".chart").get_attribute("data-last") or 0)


@pytest.fixture
async def visit(browser: Browser, product: Product) -> Callable[..., Awaitable[Visit]]:
    """Open another window, with cookies of its own."""

    async def open_visit(**options: Any) -> Visit:
        visit = await open_window(browser, Visit, **options)
        visit.url = product.url

        async def look(request: Any) -> None:
            visit.seen.append(request.url + str(request.headers) + (request.post_data or ""))

        visit.page.on("request", look)
        visit.page.on("websocket", lambda socket: _watch_socket(socket, visit))
        return visit

    return open_visit


def _watch_socket(socket: Any, visit: Visit) -> None:
    visit.hosts.add(urlsplit(socket.url).netloc)
    visit.seen.append(socket.url)
    socket.on("framereceived", lambda payload: visit.seen.append(str(payload)))


async def test_somebody_moves_in_watches_the_chart_and_switches_the_light(
    visit: Callable[..., Awaitable[Visit]], product: Product, devices: SampleDevices
) -> None:
    window = await visit()
    page = window.page
    await window.sign_up("Alice")
    await window.add_home()
    await window.add_room("Salon", f"Demo {ROOMS[0]}", CLAIM_CODES[0])
    room = window.room("Salon")

    await expect(page.locator("#live")).to_have_text("Live")
    await expect(room.locator(".status")).to_have_text("Online")
    await expect(room.locator(".reading.big")).to_contain_text("°C")
    await expect(room.locator(".chart .line")).to_be_visible()
    before = await window.last_point_of("Salon")
    await page.wait_for_function(
        "(before) => Number(document.querySelector('.chart').dataset.last) > before + 500", arg=before
    )

    light = room.get_by_role("switch", name="Light in Salon")
    await expect(light).to_have_attribute("aria-checked", "false")
    await light.click()
    await expect(room.locator(".light")).to_contain_text("On, confirmed by the device at")
    await expect(light).to_have_attribute("aria-checked", "true")

    await room.get_by_role("button", name="24 h").click()
    await page.wait_for_function("() => Number(document.querySelector('.chart').dataset.points) > 100")

    await page.reload()
    await expect(window.room("Salon").get_by_role("switch")).to_have_attribute("aria-checked", "true")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert await page.locator("article.room").count() == 0

    assert window.faults == []
    assert window.hosts == {urlsplit(product.url).netloc}, "the browser talks to the product only"
    everything = "\n".join(window.seen)
    assert GATEWAY_KEY not in everything
    assert "api-key" not in everything.lower()
    assert devices.devices[0].id not in everything, "nor does it learn ThingsBoard's ids"


async def test_a_second_user_gets_404_for_the_rooms_of_the_first(
    visit: Callable[..., Awaitable[Visit]], product: Product
) -> None:
    alice = await product.person("alice")
    home = await alice.add_home()
    room = (await alice.add_room(home))["id"]
    window = await visit()
    await window.sign_up("Bob")
    await expect(window.page.get_by_role("heading", name="Welcome!")).to_be_visible()
    assert window.faults == []
    ask = """async (path) => {
        const { call } = await import("/api.js");
        return call("GET", path).then(() => 200, (error) => error.status);
    }"""
    paths = (f"/rooms/{room}", f"/rooms/{room}/latest", f"/homes/{home}", f"/homes/{home}/rooms")
    assert [await window.page.evaluate(ask, path) for path in paths] == [404] * 4
    assert await window.page.evaluate(ask, "/homes") == 200


async def test_faults_are_shown_as_sentences(visit: Callable[..., Awaitable[Visit]]) -> None:
    window = await visit()
    page = window.page
    await page.goto(window.url)
    await page.get_by_label("E-mail address").fill("nobody@example.com")
    await page.get_by_label("Password").fill("wrong password")
    await page.locator("#account-form button[type=submit]").click()
    alert = page.locator("#account-form [role=alert]")
    await expect(alert).to_have_text("E-mail address or password is wrong.")

    await window.sign_up("Alice")
    await window.add_home()
    await page.locator("#add-room").click()
    await window.fill_dialog(**{"Name of the room": "x", "Device": f"Demo {ROOMS[0]}", "Claim code": "0000"})
    alert = page.get_by_role("dialog").locator("[role=alert]")
    await expect(alert).to_contain_text("There is no device with this name and claim code.")
    await page.get_by_role("button", name="Cancel").click()

    await window.add_room("Garage", f"Demo {SILENT_ROOM}", SILENT_CODE)
    room = window.room("Garage")
    await expect(room.locator(".status")).to_have_text("Offline")
    await room.get_by_role("switch").click()
    await expect(room.locator(".light")).to_contain_text("Trying to reach the device")
    await expect(room.locator("[role=alert]")).to_have_text("The device is offline. Nothing was switched.")
    await expect(room.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    # The browser itself notes each refusal.
    assert [fault for fault in window.faults if "the server responded with a status of 4" not in fault] == []


async def test_what_people_type_is_never_run(visit: Callable[..., Awaitable[Visit]]) -> None:
    window = await visit()
    await window.sign_up("Alice")
    name = "<img src=x onerror=\"document.title='run'\">"
    await window.add_home(name)
    assert await window.page.title() == "Smart Home"
    assert await window.page.locator("#homes img").count() == 0
    assert window.faults == []


async def test_it_fits_a_phone_and_follows_the_dark(
    visit: Callable[..., Awaitable[Visit]], product: Product
) -> None:
    window = await visit(
        viewport={"width": 360, "height": 780}, color_scheme="dark", has_touch=True, is_mobile=True
    )
    await window.sign_up("Alice")
    await window.add_home("A home with quite a long name in the country")
    await window.add_room("Kitchen", f"Demo {ROOMS[1]}", CLAIM_CODES[1])
    await expect(window.room("Kitchen").locator(".chart .line")).to_be_visible()
    assert await window.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    colour = await window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert max(int(part) for part in colour[4:-1].split(",")) < 60
    await window.room("Kitchen").get_by_role("switch").tap()
    await expect(window.room("Kitchen").locator(".light")).to_contain_text("confirmed by the device")
    assert window.faults == []
