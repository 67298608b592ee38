"""What the documentation says is true: its links lead somewhere, the tests that it names exist.

Its samples run in `tests/documentation`.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.documentation.samples import PAGES, ROOT


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings, as repository viewers make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """As the pages lie in the repository; those of the site have a test of their own."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if not target.startswith("http"):
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors_of(path), f"{target}#{anchor}"


def test_security_claims_name_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / name).is_file(), name


def test_every_risk_is_mapped_to_tests_that_exist() -> None:
    text = (ROOT / "docs/security.md").read_text()
    risks = re.split(r"^### (API\d+) .*$", text, flags=re.MULTILINE)[1:]
    assert risks[::2] == [f"API{number}" for number in range(1, 11)]
    for risk, section in zip(risks[::2], risks[1::2], strict=True):
        assert len(named_tests(section)) >= 2, risk


def test_every_limit_has_a_test() -> None:
    rows = re.findall(r"^\| (?!what |---).+$", (ROOT / "docs/limits.md").read_text(), flags=re.MULTILINE)
    rows = [row for row in rows if row.count("|") == 5]
    assert len(rows) > 15
    for row in rows:
        assert len(named_tests(row)) == 1, row


def named_tests(text: str) -> list[str]:
    """Return the tests that a text names, all of which exist."""
    named = re.findall(r"`(tests/[\w/.]+)::([\w:]+)`", text)
    for path, name in named:
        tree: ast.AST | None = ast.parse((ROOT / path).read_text())
        for part in name.split("::"):
            inside = {getattr(each, "name", ""): each for each in getattr(tree, "body", ())}
            tree = inside.get(part)
            assert tree is not None, f"{path}::{name}"
    return [name for _, name in named]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_of_a_machine_is_written_down(page: Path) -> None:
    assert not re.search(r"/root/|/home/\w|/work/", page.read_text())
