"""The catalogue of errors is whole: a page for each code, which knows all of its statuses and messages."""

import json
from pathlib import Path

import pytest

from app.problems import ANSWERS
from tests.documentation.samples import ROOT, samples_of

FOLDER = ROOT / "docs" / "errors"
CODES = sorted({code for _, code in ANSWERS.values()})


def page_of(code: str) -> Path:
    return FOLDER / f"{code.lower().replace('_', '-')}.md"


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert {page_of(code) for code in CODES} == set(FOLDER.glob("*.md")) - {FOLDER / "README.md"}


@pytest.mark.parametrize("code", CODES)
def test_a_page_says_what_its_code_means_and_what_to_do(code: str) -> None:
    text = page_of(code).read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [f"# {code}", "## Causes", "## What to do", "## Example"]
    first = text.splitlines()[2]
    for error, (status, its_code) in ANSWERS.items():
        if its_code == code:
            assert str(status) in first, f"{error.__name__} is a {status}"
            assert error.default_message in text, f"{error.__name__} says {error.default_message!r}"


@pytest.mark.parametrize("code", CODES)
def test_a_page_shows_an_answer_that_the_gateway_gave(code: str) -> None:
    story = samples_of(page_of(code))
    shown = [json.loads(sample.text)["error_code"] for sample in story if sample.mark == "answer"]
    assert shown
    assert set(shown) == {code}


def test_the_list_of_codes_is_complete() -> None:
    lines = (FOLDER / "README.md").read_text("utf-8").splitlines()
    for status, code in ANSWERS.values():
        link = f"[`{code}`]({page_of(code).name})"
        assert any(link in line and str(status) in line for line in lines), code
