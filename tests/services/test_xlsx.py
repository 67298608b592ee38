"""Workbooks: valid names for any key, sheets split, nothing left behind."""

import gc
import io

import openpyxl
import openpyxl.utils
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.xlsx import LONGEST_CELL, SheetNames, WorkbookFile, cells_of, letters_of
from app.thingsboard.telemetry import Point


def write(*items: tuple[str, list[Point]], **options: int) -> dict[str, list[tuple]]:
    """Write a workbook and read it with another library."""
    file = io.BytesIO()
    book = WorkbookFile(file, **options)
    for item in items:
        book.add(item)
    book.close()
    return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in openpyxl.load_workbook(file)}


HEAD = ("ts", "value")


def test_a_long_history_is_split_over_sheets() -> None:
    first, second = [Point(ts=n, value=n) for n in range(3)], [Point(ts=n, value=n) for n in range(3, 5)]
    assert write(("a", first), ("a", second), ("b", []), rows_a_sheet=3) == {
        "a": [HEAD, (0, 0), (1, 1)],
        "a (2)": [HEAD, (2, 2), (3, 3)],
        "a (3)": [HEAD, (4, 4)],
        "b": [HEAD],
    }


def test_a_sheet_is_bounded_in_bytes_too() -> None:
    """Not every reader knows the zip extension for members over 2 GiB."""
    pages = [("a", [Point(ts=n, value="x" * 100)]) for n in range(3)]
    assert list(write(*pages, bytes_a_sheet=250)) == ["a", "a (2)"]


def test_long_text_goes_on_in_the_next_column() -> None:
    text = "x" * (LONGEST_CELL * 2 + 1)
    assert "".join(write(("a", [Point(ts=0, value=text)]))["a"][1][1:]) == text


def test_floats_keep_all_their_digits() -> None:
    values = [1.2345678901234567, 1e300, -5e-324, 0.1, -0.0, 1e16]
    assert [row[1] for row in write(("a", [Point(ts=0, value=value) for value in values]))["a"][1:]] == values


#: What Excel itself writes and reads where XML has no character; openpyxl leaves reading it to its callers.
UNSPEAKABLE = {"a\x00b": "a_x0000_b", "a\rb": "a_x000D_b", "_x0041_": "_x005F_x0041_", "\uffff": "_xFFFF_"}


@pytest.mark.parametrize("text", ["<r>x</r>", "a & b", " blanks ", "a\nb\tc", "é🙂", "]]>", "=1+1", "_x"])
@pytest.mark.parametrize("other", [1.5, "text"])
def test_text_comes_back(text: str, other: float | str) -> None:
    rows = write(("a", [Point(ts=0, value=text), Point(ts=1, value=other)]))["a"]
    assert rows[1:] == [(0, text), (1, other)]


@pytest.mark.parametrize(("text", "written"), UNSPEAKABLE.items())
def test_what_xml_cannot_hold_is_spelled_out(text: str, written: str) -> None:
    assert cells_of(text, b"2").decode().count(f">{written}<") == 1
    assert len(write(("a", [Point(ts=0, value=text)]))["a"]) == 2


@pytest.mark.parametrize(("column", "letters"), [(1, "A"), (26, "Z"), (27, "AA"), (702, "ZZ"), (703, "AAA")])
def test_columns_have_letters(column: int, letters: str) -> None:
    assert letters_of(column) == letters == openpyxl.utils.get_column_letter(column)


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
def test_odd_keys_make_readable_workbooks(key: str) -> None:
    page = [Point(ts=0, value=1)]
    assert len(write((key, page), (key.swapcase() + "2", page))) == 2


def test_an_unfinished_workbook_is_let_go() -> None:
    file = io.BytesIO()
    book = WorkbookFile(file)
    book.add(("a", [Point(ts=0, value=1)]))
    book.add(("b", [Point(ts=0, value=1)]))
    book.discard()
    assert book._sheet is not None
    assert book._sheet.closed
    file.close()
    del book
    gc.collect()
