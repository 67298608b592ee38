"""The documentation site: it builds without a warning, its links lead somewhere, it needs nobody else."""

import functools
import http.server
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from playwright.async_api import Browser, expect

from scripts import build_docs
from tests.browser import PATIENCE_MS, chromium, open_window
from tests.documentation.samples import PAGES, ROOT, samples_of

DOCS = ROOT / "docs"
DIAGRAMS = [page for page in PAGES if any(sample.language == "mermaid" for sample in samples_of(page))]
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "site"
    build_docs.build(folder)
    return folder


@dataclass
class Read(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "src" in given or (tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}):
            self.loaded.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, Read]:
    pages = {path: Read() for path in site.rglob("*.html")}
    for path, page in pages.items():
        page.feed(path.read_text("utf-8"))
    return pages


def test_every_page_of_the_folder_is_in_the_contents() -> None:
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    contents = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), loader)["nav"]
    listed = set(re.findall(r"[\w/.-]+\.md", str(contents)))
    decisions = (DOCS / "adr/README.md").read_text("utf-8")
    listed |= {f"adr/{name}" for name in re.findall(r"\]\(([\w-]+\.md)\)", decisions)}
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert listed == there, "enter new pages in mkdocs.yml, decisions in docs/adr/README.md"


def test_no_link_is_broken(site: Path, read: dict[Path, Read]) -> None:
    broken = []
    for path, page in read.items():
        if path.name == "404.html":
            # Its links begin at the root: nobody knows below which address it is shown.
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert re.fullmatch(r"https?://[\w.-]+(:\d+)?(/\S*)?", link) or parts.scheme == "mailto", link
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = read[target].anchors if target in read else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in known):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_elsewhere(site: Path, read: dict[Path, Read]) -> None:
    for path, page in read.items():
        for link in page.loaded:
            parts = urlsplit(link)
            if parts.scheme != "data":
                assert not parts.netloc, f"{path}: {link}"
                target = (
                    site / parts.path.lstrip("/") if parts.path.startswith("/") else path.parent / parts.path
                )
                assert target.exists(), f"{path}: {link}"


def test_a_page_that_links_to_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(
        "# A\n\n```text\n[fine](nothing.md)\n```\n\n[that](../b.md#c)\n"
    )
    for name in ("mkdocs.yml", "docs_theme"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(build_docs, "ROOT", tmp_path)
    with pytest.raises(build_docs.CannotBuild, match=r"docs/index.md: \.\./b\.md is no file"):
        build_docs.build(tmp_path / "site")


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_pages_and_diagrams_show_on_every_screen(address: str, browser: Browser) -> None:
    assert DIAGRAMS
    for screen, options in SCREENS.items():
        window = await open_window(browser, **options)
        for page in [DOCS / "telemetry.md", *(page for page in DIAGRAMS if page.is_relative_to(DOCS))]:
            path = page.relative_to(DOCS).with_suffix(".html").as_posix()
            await window.page.goto(f"{address}/{path}")
            await expect(window.page.locator("h1").first).to_be_visible()
            drawn = sum(sample.language == "mermaid" for sample in samples_of(page))
            await window.page.wait_for_function(
                "(n) => document.querySelectorAll('div.mermaid').length === n"
                " && [...document.querySelectorAll('div.mermaid')].every((each) => each.clientHeight > 50)",
                arg=drawn,
                timeout=PATIENCE_MS,
            )
            wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not await window.page.evaluate(wider), f"{path} is too wide for {screen}"
        assert window.faults == []
        assert window.hosts == {urlsplit(address).netloc}


async def test_search_finds_a_page_without_asking_anybody_else(address: str, browser: Browser) -> None:
    window = await open_window(browser, **SCREENS["desktop"])
    async with window.page.expect_response("**/search.json"):
        await window.page.goto(f"{address}/index.html")
    await window.page.get_by_role("button", name="Search").click()
    await window.page.get_by_role("combobox", name="Search").fill("Going on with an export")
    await window.page.locator("a", has_text="Going on with an export").first.click()
    await window.page.wait_for_url("**/telemetry.html*")
    assert window.faults == []
    assert window.hosts == {urlsplit(address).netloc}
