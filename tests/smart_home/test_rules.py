"""The house rules of the example, as tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "smart_home"
FILES = sorted(EXAMPLE.rglob("*.py"))
#: What a part of it must not import. `app` is the gateway: it is known by its HTTP API only.
FORBIDDEN = {
    "": ("app", "tb_simulator", "tests"),
    "services": ("fastapi", "starlette", "httpx", "websockets", "examples.smart_home.routers"),
    "live": ("fastapi", "starlette", "httpx", "sqlalchemy", "examples.smart_home.routers"),
    "repositories.py": ("fastapi", "httpx", "examples.smart_home.services", "examples.smart_home.gateway"),
    "models.py": ("fastapi", "examples"),
    "routers": ("sqlalchemy", "httpx", "websockets", "examples.smart_home.repositories"),
    "gateway.py": ("fastapi", "sqlalchemy", "examples.smart_home.models"),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXAMPLE).as_posix())
def test_layers_point_one_way_and_files_stay_readable(path: Path) -> None:
    name = path.relative_to(EXAMPLE).as_posix()
    for place, forbidden in FORBIDDEN.items():
        if name.startswith(place):
            prefixes = tuple(f"{each}." for each in forbidden)
            assert not [each for each in imports(path) if f"{each}.".startswith(prefixes)]
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize("path", sorted((EXAMPLE / "web").iterdir()), ids=lambda path: path.name)
def test_the_page_is_its_own(path: Path) -> None:
    """Nothing is loaded from elsewhere, and text never becomes markup."""
    text = path.read_text()
    assert text.count("\n") <= 400
    assert "https://" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    for risky in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", ' style="', " onclick="):
        assert risky not in text
