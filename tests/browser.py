"""A real Chromium, and what goes wrong in it: errors on the console, refused content, calls to elsewhere."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page, async_playwright

from tests.processes import program

#: The machine may be busy with other things.
PATIENCE_MS = 30_000


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless; skips the test where there is none."""
    # What Ubuntu calls it, too.
    path = shutil.which("chromium-browser") or program("chromium")
    # Root has no sandbox, as in most containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        await browser.close()


@dataclass
class Window:
    """A page of its own, with cookies of its own, that is watched."""

    page: Page
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


W = TypeVar("W", bound=Window)


async def open_window(browser: Browser, kind: type[W] = Window, **options: Any) -> W:
    """Open one of this kind; the options are those of a browser context."""
    page = await (await browser.new_context(**options)).new_page()
    page.set_default_timeout(PATIENCE_MS)
    window = kind(page)
    page.on("console", lambda said: said.type == "error" and window.faults.append(said.text))
    page.on("pageerror", lambda error: window.faults.append(str(error)))
    page.on("request", lambda request: window.hosts.add(urlsplit(request.url).netloc))
    await page.expose_function("tellOfViolation", lambda rule: window.faults.append(f"CSP {rule}"))
    await page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => tellOfViolation(event.violatedDirective))"
    )
    return window
