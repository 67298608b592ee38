"""What the documentation says is true: its lines run, its links lead somewhere, its tables are whole."""

import ast
import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.factory import create_app
from app.problems import ANSWERS
from tb_simulator.demo import SampleDevices
from tb_simulator.server import Simulator
from tests.conftest import SettingsFactory
from tests.serving import serve

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEMO_KEY = "demo-key-0123456789abcdef"
WRITTEN_ADDRESS = "http://127.0.0.1:8000"


def lines_to_paste(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


@pytest.fixture
async def demo(simulator: Simulator, make_settings: SettingsFactory) -> AsyncIterator[str]:
    """The gateway as `scripts/demo` starts it."""
    async with (
        SampleDevices(simulator.world),
        serve(create_app(make_settings(api_key=DEMO_KEY, rate_limit_requests=100))) as url,
    ):
        yield url


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
async def test_the_lines_work_when_pasted(demo: str, name: str) -> None:
    lines = lines_to_paste(ROOT / name)
    assert len(lines) >= 3
    for line in lines:
        assert WRITTEN_ADDRESS in line
        command = line.replace(WRITTEN_ADDRESS, demo) + " -w '\\n%{http_code}'"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "API_KEY": DEMO_KEY},
        )
        output, _ = await process.communicate()
        status = output.decode(errors="replace").rsplit("\n", 1)[-1]
        assert status.startswith("2"), f"{line}\n{output.decode(errors='replace')}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_error_table_is_complete() -> None:
    text = (ROOT / "docs/api.md").read_text()
    for status, code in ANSWERS.values():
        assert any(f"`{code}`" in line and str(status) in line for line in text.splitlines()), code


def test_security_claims_name_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / name).is_file(), name


def test_every_risk_is_mapped_to_tests_that_exist() -> None:
    text = (ROOT / "docs/security.md").read_text()
    risks = re.split(r"^### (API\d+) .*$", text, flags=re.MULTILINE)[1:]
    assert risks[::2] == [f"API{number}" for number in range(1, 11)]
    for risk, section in zip(risks[::2], risks[1::2], strict=True):
        named = re.findall(r"`(tests/[\w/.]+)::([\w:]+)`", section)
        assert len(named) >= 2, risk
        for path, name in named:
            tree: ast.AST | None = ast.parse((ROOT / path).read_text())
            for part in name.split("::"):
                inside = {getattr(each, "name", ""): each for each in getattr(tree, "body", ())}
                tree = inside.get(part)
                assert tree is not None, f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_of_a_machine_is_written_down(page: Path) -> None:
    assert not re.search(r"/root/|/home/\w|/work/", page.read_text())
