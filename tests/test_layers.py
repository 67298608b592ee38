"""The house rules of the code, as tests."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.factory import create_app
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "app").rglob("*.py"))

#: What a folder must not import. Imports point one way: api > services > thingsboard.
FORBIDDEN = {
    "app/thingsboard": ("fastapi", "starlette", "app.api", "app.services", "app.middleware", "app.schemas"),
    "app/services": ("fastapi", "app.api", "app.middleware", "aiohttp"),
    "app/middleware": ("app.api", "app.services", "app.thingsboard", "app.schemas"),
    "app/schemas": ("app.api", "app.services", "app.thingsboard", "app.middleware"),
    "app/api": ("aiohttp", "app.factory", "app.middleware"),
    "app": ("tb_simulator", "tests", "httpx"),
}
ENTRY = {"app/factory.py", "app/serve.py", "app/__main__.py"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    for folder, forbidden in FORBIDDEN.items():
        if name.startswith(folder):
            wrong = [
                each for each in imports(path) if (each + ".").startswith(tuple(f + "." for f in forbidden))
            ]
            assert not wrong, f"{name} imports {wrong}"
    if name not in ENTRY:
        assert "app.factory" not in set(imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


def test_only_the_transport_knows_the_http_library() -> None:
    users = {path.name for path in FILES if any(name.split(".")[0] == "aiohttp" for name in imports(path))}
    assert users == {"aiohttp_transport.py"}


def test_nothing_uses_base_http_middleware() -> None:
    assert not [path.name for path in FILES if "BaseHTTPMiddleware" in path.read_text()]


def test_no_dependency_is_a_plain_function() -> None:
    """FastAPI would run it in a thread for each request."""
    app = create_app(
        Settings(_env_file=None, tb_host="http://localhost", tb_api_key="not-called", api_key="not-called-1")
    )

    def calls(dependant: Dependant) -> Iterator[object]:
        for each in dependant.dependencies:
            yield each.call
            yield from calls(each)

    used = {
        call
        for route in iter_route_contexts(app.routes)
        if isinstance(getattr(route, "dependant", None), Dependant)
        for call in calls(route.dependant)
    }
    assert len(used) > 5
    assert not [call for call in used if not inspect.iscoroutinefunction(call)]
