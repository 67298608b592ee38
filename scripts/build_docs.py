"""Builds the documentation site from `docs/`, and shows it. `scripts/docs` makes `.venv` and starts this.

Pages link to files of the repository as they lie (`../SECURITY.md`), so that links work wherever it is
shown. A site has only what is in it: what such a link names is put into its folder `repository`.
"""

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Where the package `mermaidx` keeps Mermaid as the script of a page.
MERMAID = files("mermaidx") / "assets" / "mermaid.js"
#: A fenced block, or the target of a link up to its anchor.
FENCE_OR_LINK = re.compile(r"^```.*?^```|(?<=\]\()(?![a-z]+:|#)[^)#\s]+", re.DOTALL | re.MULTILINE)
#: What browsers show, or pages embed, under its own name; all else is shown as text.
SHOWN = frozenset({".md", ".png", ".svg", ".txt"})


class CannotBuild(Exception):
    """A page is at fault; the message names it."""


class Sources:
    """The pages as the site generator gets them: `docs/` with all that it links to."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def collect(self) -> None:
        """Put everything into place."""
        shutil.copytree(ROOT / "docs", self.target)
        for page in sorted((ROOT / "docs").rglob("*.md")):
            self._rewrite(page)
        assets = self.target / "assets"
        assets.mkdir()
        shutil.copy(ROOT / "docs_theme" / "site.css", assets)
        (assets / "mermaid.js").write_bytes(MERMAID.read_bytes())

    def place_of(self, path: Path) -> Path:
        """Return where a file of the repository is in the site."""
        if path.is_relative_to(ROOT / "docs"):
            return self.target / path.relative_to(ROOT / "docs")
        place = self.target / "repository" / path.relative_to(ROOT)
        return place if place.suffix in SHOWN else place.with_name(f"{place.name}.txt")

    def _rewrite(self, page: Path) -> None:
        def target(found: re.Match[str]) -> str:
            if found[0].startswith("```"):
                return found[0]
            path = Path(os.path.normpath(page.parent / found[0]))
            if not path.is_file() or not path.is_relative_to(ROOT):
                raise CannotBuild(f"{page.relative_to(ROOT)}: {found[0]} is no file of the repository")
            self._bring(path)
            return os.path.relpath(self.place_of(path), self.place_of(page).parent)

        text = FENCE_OR_LINK.sub(target, page.read_text("utf-8"))
        self.place_of(page).write_text(text, "utf-8")

    def _bring(self, path: Path) -> None:
        place = self.place_of(path)
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        if path.suffix == ".md":
            self._rewrite(path)


def build(site: Path) -> None:
    """Build the site; anything that the generator warns of is a fault."""
    with tempfile.TemporaryDirectory(prefix="gateway-docs-") as folder:
        work = Path(folder)
        shutil.copy(ROOT / "mkdocs.yml", work)
        shutil.copytree(ROOT / "docs_theme", work / "docs_theme")
        Sources(work / "docs").collect()
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=work, check=False, capture_output=True, text=True)  # noqa: S603 - our own
        if done.returncode != 0:
            raise CannotBuild(f"the site generator refuses:\n{done.stdout}{done.stderr}")
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(work / "site", site)


def serve(site: Path, port: int) -> None:
    """Show the site on this machine until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"📖 http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and serve if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description="Build or show the documentation site.")
    parser.add_argument("command", choices=("build", "serve"))
    parser.add_argument("--output", type=Path, default=ROOT / "site", help="where to (site/ unless given)")
    options = parser.parse_args(arguments)
    try:
        build(options.output)
        print(f"✅ {options.output / 'index.html'}", flush=True)
        if options.command == "serve":
            serve(options.output, int(os.environ.get("DOCS_PORT", "8001")))
    except CannotBuild as error:
        print(f"❌ {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
