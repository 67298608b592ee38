"""Workbooks: valid names for any key, sheets split, nothing left behind."""

import io
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.xlsx import LONGEST_CELL, SheetNames, WorkbookFile
from app.thingsboard.telemetry import Point


def read(path: Path) -> dict[str, list[tuple]]:
    book = openpyxl.load_workbook(io.BytesIO(path.read_bytes()))
    return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book}


def test_a_long_history_is_split_over_sheets(tmp_path: Path) -> None:
    book = WorkbookFile(tmp_path / "x.xlsx", rows_a_sheet=3)
    book.add("a", [Point(ts=n, value=n) for n in range(3)])
    book.add("a", [Point(ts=n, value=n) for n in range(3, 5)])
    book.add("b", [])
    book.close()
    head = ("ts", "value")
    assert read(tmp_path / "x.xlsx") == {
        "a": [head, (0, 0), (1, 1)],
        "a (2)": [head, (2, 2), (3, 3)],
        "a (3)": [head, (4, 4)],
        "b": [head],
    }


def test_long_text_goes_on_in_the_next_column(tmp_path: Path) -> None:
    text = "x" * (LONGEST_CELL * 2 + 1)
    book = WorkbookFile(tmp_path / "x.xlsx")
    book.add("a", [Point(ts=0, value=text)])
    book.close()
    assert "".join(read(tmp_path / "x.xlsx")["a"][1][1:]) == text


def test_floats_keep_all_their_digits(tmp_path: Path) -> None:
    book = WorkbookFile(tmp_path / "x.xlsx")
    book.add("a", [Point(ts=0, value=1.2345678901234567)])
    book.close()
    assert read(tmp_path / "x.xlsx")["a"][1] == (0, 1.2345678901234567)


@given(keys=st.lists(st.text(max_size=60), min_size=1, max_size=30))
@settings(deadline=None)
def test_any_keys_get_names_that_excel_takes(keys: list[str]) -> None:
    names = SheetNames()
    given_names = [names.name(key) for key in keys]
    assert len({name.lower() for name in given_names}) == len(keys)
    for name in given_names:
        assert 0 < len(name.encode("utf-16-le")) <= 62
        assert not set(name) & set("[]:*?/\\")
        assert not name.startswith("'")
        assert not name.endswith("'")
        assert name.lower() != "history"


@pytest.mark.parametrize(
    "key", ["History", "a/b", "'quoted'", "x" * 40, "🙂" * 20, "", " ", "\x01", "A", "a"]
)
def test_odd_keys_make_readable_workbooks(tmp_path: Path, key: str) -> None:
    book = WorkbookFile(tmp_path / "x.xlsx")
    book.add(key, [Point(ts=0, value=1)])
    book.add(key.swapcase() + "2", [Point(ts=0, value=1)])
    book.close()
    assert len(read(tmp_path / "x.xlsx")) == 2


def test_an_unfinished_workbook_is_let_go(tmp_path: Path) -> None:
    book = WorkbookFile(tmp_path / "x.xlsx")
    book.add("a", [Point(ts=0, value=1)])
    book.add("b", [Point(ts=0, value=1)])
    book.discard()
    assert not (tmp_path / "x.xlsx").exists()
