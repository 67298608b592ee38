"""What the documentation says is true: its links lead somewhere, the tests that it names exist.

Its samples run in `tests/documentation`.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.documentation.samples import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


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
