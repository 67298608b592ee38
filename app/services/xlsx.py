"""Whole histories as workbooks, row by row.

The sheets are written here and not by XlsxWriter, which takes 14 s of CPU for a million points where this
takes one: numbers are encoded by the column, as in `exports.py`.
"""

import contextlib
import re
from collections.abc import Sequence
from itertools import repeat
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr
from zipfile import ZIP_DEFLATED, ZipFile

import orjson

from app.services.exports import NUMERIC, TIMES, VALUES, encode_numbers
from app.thingsboard.telemetry import Point

ROWS_A_SHEET = 1_048_576
#: A zip member beyond 2 GiB needs an extension that not every reader knows.
BYTES_A_SHEET = 1 << 30
#: Higher levels take twice the time for a twentieth of the size.
COMPRESSION = 1
#: Excel keeps numbers as doubles: beyond this, whole numbers are written as text.
LARGEST_EXACT = 2**53
#: Excel allows 32,767 UTF-16 units in a cell, a character may be two. Longer text fills the next column too.
LONGEST_CELL = 16_383
LONGEST_NAME = 31
FORBIDDEN_IN_NAMES = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
#: Excel keeps this name for itself.
RESERVED = "history"
#: What XML cannot hold is written `_x000D_` (ECMA-376, ST_Xstring); text that looks like that, too.
UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"
SHEET_HEAD = (
    f'{XML}<worksheet xmlns="{MAIN}"><sheetData><row r="1">'
    '<c r="A1" t="inlineStr"><is><t>ts</t></is></c><c r="B1" t="inlineStr"><is><t>value</t></is></c></row>'
).encode()
SHEET_END = b"</sheetData></worksheet>"
#: One font, fill, border and format: the least that Excel takes.
STYLES = (
    f'{XML}<styleSheet xmlns="{MAIN}">'
    '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
)


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
    """A workbook with a sheet a key that grows row by row at constant memory. See `FileWriter`."""

    def __init__(
        self, file: IO[bytes], *, rows_a_sheet: int = ROWS_A_SHEET, bytes_a_sheet: int = BYTES_A_SHEET
    ) -> None:
        self._zip = ZipFile(file, "w", ZIP_DEFLATED, compresslevel=COMPRESSION)
        self._rows_a_sheet, self._bytes_a_sheet = rows_a_sheet, bytes_a_sheet
        self._names = SheetNames()
        self._sheets: list[str] = []
        self._key: str | None = None
        self._sheet: IO[bytes] | None = None
        self._row = self._bytes = 0

    def add(self, item: tuple[str, list[Point]]) -> None:
        """Write points of a key below its earlier ones; a key whose sheet is full gets another."""
        key, points = item
        if self._sheet is None or key != self._key:
            self._begin(key)
        while points:
            if self._row == self._rows_a_sheet or self._bytes >= self._bytes_a_sheet:
                self._begin(key)
            room = self._rows_a_sheet - self._row
            self._write(points[:room])
            points = points[room:]

    def close(self) -> None:
        """Finish the file; a workbook needs a sheet, so an empty one gets the name `empty`."""
        if not self._sheets:
            self._begin("empty")
        self._end()
        for name, text in _parts(self._sheets).items():
            self._zip.writestr(name, text)
        self._zip.close()

    def discard(self) -> None:
        """Let go of the unfinished file."""
        # Without this a ZipFile writes its table of contents when it is collected, to a file that is closed.
        self._zip.fp = None
        if self._sheet is not None:
            # Left open it would be closed when it is collected, of which Python 3.13 prints the failure.
            with contextlib.suppress(AttributeError):
                self._sheet.close()

    def _begin(self, key: str) -> None:
        self._end()
        self._sheets.append(self._names.name(key))
        self._sheet = self._zip.open(f"xl/worksheets/sheet{len(self._sheets)}.xml", "w")
        self._sheet.write(SHEET_HEAD)
        self._key, self._row, self._bytes = key, 1, 0

    def _end(self) -> None:
        if self._sheet is not None:
            self._sheet.write(SHEET_END)
            self._sheet.close()

    def _write(self, points: Sequence[Point]) -> None:
        numbers = encode_numbers(list(range(self._row + 1, self._row + 1 + len(points))))
        xml = rows_of(points, numbers)
        assert self._sheet is not None  # noqa: S101 - `add` has begun one
        self._sheet.write(xml)
        self._row += len(points)
        self._bytes += len(xml)


def rows_of(points: Sequence[Point], numbers: Sequence[bytes]) -> bytes:
    """Return points as rows with these numbers."""
    times, values = encode_numbers(list(map(TIMES, points))), list(map(VALUES, points))
    if set(map(type, values)) <= NUMERIC and -LARGEST_EXACT <= min(values) <= max(values) <= LARGEST_EXACT:
        cells: Sequence[bytes] = encode_numbers(values)
        before, after = b'</v></c><c r="B', b"</v></c></row>"
        parts = zip(
            *(repeat(b'<row r="'), numbers, repeat(b'"><c r="A'), numbers, repeat(b'"><v>'), times),
            *(repeat(before), numbers, repeat(b'"><v>'), cells, repeat(after)),
            strict=False,
        )
    else:
        cells = list(map(cells_of, values, numbers))
        parts = zip(
            *(repeat(b'<row r="'), numbers, repeat(b'"><c r="A'), numbers, repeat(b'"><v>'), times),
            *(repeat(b"</v></c>"), cells, repeat(b"</row>")),
            strict=False,
        )
    return b"".join(map(b"".join, parts))


def cells_of(value: Any, number: bytes) -> bytes:
    """Return a value as the cell that loses nothing of it; long text as several."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return b'<c r="B%b" t="b"><v>%d</v></c>' % (number, value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST_EXACT):
        return b'<c r="B%b"><v>%b</v></c>' % (number, orjson.dumps(value))
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    pieces = (text[index : index + LONGEST_CELL] for index in range(0, len(text), LONGEST_CELL))
    return "".join(
        f'<c r="{letters_of(column)}{number.decode()}" t="inlineStr"><is><t xml:space="preserve">'
        f"{escape(UNSPEAKABLE.sub(_spelled, piece))}</t></is></c>"
        for column, piece in enumerate(pieces, start=2)
    ).encode()


def _spelled(found: re.Match[str]) -> str:
    return f"_x{ord(found[0]):04X}_"


def letters_of(column: int) -> str:
    """Return the letters of a column: 1 is A, 27 is AA."""
    letters = ""
    while column:
        column, index = divmod(column - 1, 26)
        letters = chr(ord("A") + index) + letters
    return letters


def _parts(sheets: Sequence[str]) -> dict[str, str]:
    """Return the parts of a workbook around its sheets (ECMA-376, part 2)."""
    numbered = list(enumerate(sheets, start=1))
    types = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{CONTENT}.worksheet+xml"/>'
        for n, _ in numbered
    )
    listed = "".join(f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="rId{n}"/>' for n, name in numbered)
    related = "".join(
        f'<Relationship Id="rId{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n, _ in numbered
    )
    relationships = f'{XML}<Relationships xmlns="{PACKAGE}/relationships">'
    return {
        "[Content_Types].xml": (
            f'{XML}<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{CONTENT}.sheet.main+xml"/>'
            f'<Override PartName="/xl/styles.xml" ContentType="{CONTENT}.styles+xml"/>{types}</Types>'
        ),
        "_rels/.rels": (
            f'{relationships}<Relationship Id="rId1" Type="{OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>'
        ),
        "xl/workbook.xml": (
            f'{XML}<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>'
        ),
        "xl/_rels/workbook.xml.rels": (
            f'{relationships}{related}<Relationship Id="rId{len(sheets) + 1}" Type="{OFFICE}/styles" '
            'Target="styles.xml"/></Relationships>'
        ),
        "xl/styles.xml": STYLES,
    }
