"""Writes whole histories as a workbook: to a file first, because a zip archive cannot be streamed."""

import re
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
from anyio import to_thread
from xlsxwriter import Workbook  # type: ignore[import-untyped]  # it has no types

from app.services.history import History
from app.thingsboard.telemetry import Point

ROWS_A_SHEET = 1_048_576
#: Excel keeps numbers as doubles: beyond this, whole numbers are written as text.
LARGEST_EXACT = 2**53
#: Excel allows 32,767 UTF-16 units in a cell, a character may be two. Longer text fills the next column too.
LONGEST_CELL = 16_383
LONGEST_NAME = 31
FORBIDDEN_IN_NAMES = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
#: Excel keeps this name for itself.
RESERVED = "history"
PIECE = 1 << 16


class ExactFloat(float):
    """A number that is written with all its digits: XlsxWriter's own format ends after 16."""

    def __format__(self, spec: str) -> str:
        return repr(float(self))


class SheetNames:
    """Gives each key a valid name that no other sheet of the workbook has."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, key: str) -> str:
        """Return a new name, as much like the key as Excel allows."""
        plain = FORBIDDEN_IN_NAMES.sub("_", key).strip("'") or "key"
        number = 1
        while True:
            suffix = "" if number == 1 else f" ({number})"
            name = _cut(plain, LONGEST_NAME - len(suffix)) + suffix
            if name.strip() and name.lower() not in self._taken and name.lower() != RESERVED:
                self._taken.add(name.lower())
                return name
            number += 1


def _cut(text: str, units: int) -> str:
    """Return as much of the text as fits into this many UTF-16 units, without an apostrophe at its end."""
    while len(text.encode("utf-16-le")) > units * 2:
        text = text[:-1]
    return text.rstrip("'")


class WorkbookFile:
    """A workbook that grows row by row at constant memory. For worker threads, one at a time."""

    def __init__(self, path: Path, *, rows_a_sheet: int = ROWS_A_SHEET) -> None:
        options = {
            "constant_memory": True,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
            "tmpdir": str(path.parent),
        }
        self._book = Workbook(str(path), options)
        self._names, self._rows_a_sheet = SheetNames(), rows_a_sheet
        self._key: str | None = None
        self._sheet: Any = None
        self._row = 0

    def add(self, key: str, points: list[Point]) -> None:
        """Write points of a key below its earlier ones."""
        if self._sheet is None or key != self._key:
            self._begin(key)
        for point in points:
            if self._row == self._rows_a_sheet:
                self._begin(key)
            self._write(point)

    def close(self) -> None:
        """Finish the file; a workbook needs a sheet, so an empty one gets the name `empty`."""
        if self._sheet is None:
            self._begin("empty")
        self._book.close()

    def discard(self) -> None:
        """Let go of the unfinished file."""
        for sheet in self._book.worksheets():
            sheet._opt_close()  # noqa: SLF001 - XlsxWriter has no public way to give up a workbook

    def _begin(self, key: str) -> None:
        self._sheet = self._book.add_worksheet(self._names.name(key))
        self._key, self._row = key, 1
        self._sheet.write_string(0, 0, "ts")
        self._sheet.write_string(0, 1, "value")

    def _write(self, point: Point) -> None:
        self._sheet.write_number(self._row, 0, point["ts"])
        write_value(self._sheet, self._row, point["value"])
        self._row += 1


def write_value(sheet: Any, row: int, value: Any) -> None:
    """Write one value as the cell type that loses nothing of it."""
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, 1, value)
    elif isinstance(value, float):
        sheet.write_number(row, 1, ExactFloat(value))
    elif isinstance(value, int) and abs(value) <= LARGEST_EXACT:
        sheet.write_number(row, 1, value)
    else:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        for column, piece in enumerate(cells_of(text), start=1):
            sheet.write_string(row, column, piece)


def cells_of(text: str) -> list[str]:
    """Cut text into what fits a cell."""
    # XlsxWriter takes text between these tags for its own markup, and writes it unescaped.
    if text.startswith("<r>") and text.endswith("</r>"):
        return [*cells_of(text[:-1]), text[-1:]]
    return [text[index : index + LONGEST_CELL] for index in range(0, len(text), LONGEST_CELL)]


async def workbook_stream(history: History) -> AsyncGenerator[bytes, None]:
    """Yield a workbook with a sheet a key. Its first piece comes when all of it is written.

    The file is gone afterwards, whatever happens: threads are waited for even if the caller has left.
    """
    folder = Path(await to_thread.run_sync(tempfile.mkdtemp))
    try:
        path = folder / "export.xlsx"
        book = WorkbookFile(path)
        try:
            async with aclosing(history.by_key()) as pages:
                async for key, points in pages:
                    await to_thread.run_sync(book.add, key, points)
            await to_thread.run_sync(book.close)
        except BaseException:
            book.discard()
            raise
        with path.open("rb") as file:
            while piece := await to_thread.run_sync(file.read, PIECE):
                yield piece
    finally:
        shutil.rmtree(folder, ignore_errors=True)
