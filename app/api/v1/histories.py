"""Whole histories of one device or asset: as JSON, as files, and how large they are."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from pydantic import AfterValidator, StringConstraints
from starlette.responses import Response

from app.api.entities import Entity, Kind, entity_in_path
from app.api.ranges import KeysDep, SpanDep
from app.api.route import requires
from app.api.streaming import MeasuredAnswer, StreamedAnswer
from app.deps import FileTurnsDep, UpstreamDep
from app.errors import InvalidRequest
from app.schemas.telemetry import HistoryAnswer
from app.services import parquet
from app.services.exact_aggregates import count_points
from app.services.exports import CSVLong, CSVWide, JSONLines, json_stream, row_stream
from app.services.files import FileTurns, file_stream
from app.services.history import History, Resume
from app.services.parquet import ParquetFile
from app.services.xlsx import WorkbookFile
from app.times import EARLIEST, LATEST

SCOPE = requires("telemetry:read")
#: A wide row has a cell for each key, and a workbook a sheet: both are held to what is readable.
MOST_COLUMNS, MOST_SHEETS = 1_000, 250
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
#: Formats that are written to disk first; they hold compressed data.
FILES = frozenset({"xlsx", "parquet"})

Format = Literal["json", "csv", "jsonl", "xlsx", "parquet"]
FormatQuery = Annotated[
    Format,
    Query(alias="format", description="`json` unless given; the others are the files of `/export`."),
]
FileFormatQuery = Annotated[
    Literal["csv", "jsonl", "xlsx", "parquet"],
    Query(
        alias="format",
        description="`csv` (RFC 4180), `jsonl` (an object a line), `xlsx` (a sheet a key) or `parquet` (a "
        "column a type; only where the operator has installed pyarrow).",
    ),
]
CURSOR = re.compile(r"(-?[0-9]{1,16})(?:,(.+))?", re.DOTALL)


def check_cursor(cursor: str | None) -> str | None:
    """Refuse what cannot be the beginning of a row."""
    if cursor is not None and not CURSOR.fullmatch(cursor):
        raise ValueError("must be the ts (in ms) of a row, or its ts, a comma and its key")
    return cursor


CursorQuery = Annotated[
    str | None,
    StringConstraints(max_length=300),
    AfterValidator(check_cursor),
    Query(
        description="CSV and JSON lines only. Go on behind the last row that you have: its `ts`, a comma and "
        "its `key`; its `ts` alone with `layout=wide`. The answer has no header, so that it can be appended.",
        examples=["1760000000000,temperature"],
    ),
]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a history is to be written, besides its format."""

    keys: list[str] | None
    span: tuple[int, int]
    is_wide: bool
    raw: bool
    accept_encoding: str | None
    resume: Resume | None = None

    def check(self, file_format: Format) -> None:
        """Refuse what the format has no use for, and a cursor that fits no row."""
        for field, is_given, formats in (
            ("raw", self.raw, {"csv"}),
            ("layout", self.is_wide, {"csv"}),
            ("cursor", self.resume, {"csv", "jsonl"}),
        ):
            if is_given and file_format not in formats:
                raise refused(field, "is for CSV only" if len(formats) == 1 else "is for csv and jsonl only")
        if self.resume is None:
            return
        key = self.resume.key
        if self.is_wide and (key is not None or self.keys is None):
            # Without names, a new key would add a column to the rows that follow.
            raise refused("cursor", "with layout=wide it is a ts alone, and needs the keys to be named")
        if key is not None and self.keys is not None and key not in self.keys:
            raise refused("cursor", "its key is not among the keys that are asked for")


def refused(field: str, issue: str) -> InvalidRequest:
    """Say what is wrong with a parameter."""
    return InvalidRequest(f"{field}: {issue}", details={"field": field, "issue": issue})


async def read_wishes(
    keys: KeysDep,
    span: SpanDep,
    layout: Annotated[
        Literal["long", "wide"],
        Query(description="CSV only. `long`: `ts,key,value`; `wide`: a column a key, a row a time."),
    ] = "long",
    raw: Annotated[
        bool, Query(description="CSV only. Leave text that a spreadsheet would run as a formula as it is.")
    ] = False,
    accept_encoding: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Wishes:
    """Read what the history routes take, with GET and with HEAD."""
    return Wishes(keys, span, layout == "wide", raw, accept_encoding)


async def read_resumable(
    wishes: Annotated[Wishes, Depends(read_wishes)], cursor: CursorQuery = None
) -> Wishes:
    """Read what they take with GET alone."""
    if cursor is None:
        return wishes
    ts, _, key = cursor.partition(",")
    if not EARLIEST <= int(ts) <= LATEST:
        raise refused("cursor", "its ts is outside the years 1 to 9999")
    return replace(wishes, resume=Resume(int(ts), key or None))


WishesDep = Annotated[Wishes, Depends(read_resumable)]
MeasuredDep = Annotated[Wishes, Depends(read_wishes)]


def add_history_routes(routes: APIRouter, kind: Kind) -> None:
    """Add them for one kind."""
    _add_reads(routes, kind)
    _add_sizes(routes, kind)


def _add_reads(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/telemetry",
        operation_id=kind.operation("get_{}telemetry"),
        summary=f"Get the history of one {kind.word}",
        responses={200: {"model": HistoryAnswer}},
        openapi_extra=SCOPE,
    )
    async def get_telemetry(
        upstream: UpstreamDep,
        turns: FileTurnsDep,
        entity: Annotated[Entity, Depends(find)],
        wishes: WishesDep,
        file_format: FormatQuery = "json",
    ) -> Response:
        """Return every point of a range, oldest first, however many there are, as a stream.

        An unknown key has an empty list. A stream that fails underway ends without its last chunk, so that a
        half answer is never taken for a whole one. HEAD answers `X-Total-Count`, how many points there are.
        """
        return await stream_history(upstream, entity, wishes, file_format, turns)

    @routes.get(
        f"{kind.path}/telemetry/export",
        operation_id=kind.operation("export_{}telemetry"),
        summary=f"Export the history of one {kind.word} as a file",
        responses={
            200: {
                "description": "The file. `Content-Type` says which format it has.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        response_class=Response,
        openapi_extra=SCOPE,
    )
    async def export_telemetry(
        upstream: UpstreamDep,
        turns: FileTurnsDep,
        entity: Annotated[Entity, Depends(find)],
        wishes: WishesDep,
        file_format: FileFormatQuery = "csv",
    ) -> Response:
        """Return every point of a range, oldest first, however many there are, as a file to keep.

        Rows are in the order of time, those of one time in the order of their keys. In CSV, text that a
        spreadsheet would run as a formula gets a `'` in front; `raw=true` leaves it. A workbook or a Parquet
        file is sent when it is complete; the others begin at once, and an export that broke goes on with
        `cursor`. HEAD answers `X-Total-Count`, how many points there are.
        """
        return await stream_history(upstream, entity, wishes, file_format, turns)


def _add_sizes(routes: APIRouter, kind: Kind) -> None:
    """Answer HEAD; the document does not list it, because generators make calls without a result of it."""
    find = entity_in_path(kind)

    @routes.head(f"{kind.path}/telemetry", include_in_schema=False, openapi_extra=SCOPE)
    async def measure_telemetry(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        wishes: MeasuredDep,
        file_format: FormatQuery = "json",
    ) -> Response:
        return await measure_history(upstream, entity, wishes, file_format)

    @routes.head(f"{kind.path}/telemetry/export", include_in_schema=False, openapi_extra=SCOPE)
    async def measure_export(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        wishes: MeasuredDep,
        file_format: FileFormatQuery = "csv",
    ) -> Response:
        return await measure_history(upstream, entity, wishes, file_format)


async def stream_history(
    upstream: UpstreamDep, entity: Entity, wishes: Wishes, file_format: Format, turns: FileTurns
) -> Response:
    """Check the entity, read the first page, and answer the rest as it comes."""
    wishes.check(file_format)
    if file_format == "parquet":
        await parquet.load()
    history = await History.open(
        upstream, (entity.type, entity.id), wishes.keys, wishes.span, resume=wishes.resume
    )
    return StreamedAnswer(
        _pieces(history, entity, wishes, file_format, turns),
        media_type=MEDIA_TYPES[file_format],
        accept_encoding=wishes.accept_encoding,
        filename=filename_of(entity, file_format),
        is_packed=file_format in FILES,
    )


async def measure_history(
    upstream: UpstreamDep, entity: Entity, wishes: Wishes, file_format: Format
) -> Response:
    """Answer the head of a history with its number of points."""
    wishes.check(file_format)
    if file_format == "parquet":
        await parquet.load()
    found = await count_points(upstream, (entity.type, entity.id), wishes.keys, wishes.span)
    return MeasuredAnswer(
        found.answer["total"],
        is_exact=found.answer["exact"],
        media_type=MEDIA_TYPES[file_format],
        filename=filename_of(entity, file_format),
    )


def filename_of(entity: Entity, file_format: Format) -> str | None:
    """Return the name under which an answer is to be kept, if it is a file."""
    return None if file_format == "json" else f"telemetry-{entity.id}.{file_format}"


def _pieces(
    history: History, entity: Entity, wishes: Wishes, file_format: Format, turns: FileTurns
) -> AsyncGenerator[bytes, None]:
    headed = wishes.resume is None
    if file_format == "json":
        return json_stream(history, entity.identified)
    if file_format == "jsonl":
        return row_stream(history, JSONLines())
    if file_format == "parquet":
        return file_stream(history.merged(), ParquetFile, turns)
    if file_format == "xlsx":
        _check_count(history, MOST_SHEETS, "a workbook has a sheet a key")
        return file_stream(history.by_key(), WorkbookFile, turns)
    if wishes.is_wide:
        _check_count(history, MOST_COLUMNS, "a wide table has a column a key")
        return row_stream(history, CSVWide(history.keys, raw=wishes.raw), headed=headed)
    return row_stream(history, CSVLong(raw=wishes.raw), headed=headed)


def _check_count(history: History, most: int, why: str) -> None:
    if len(history.keys) > most:
        raise refused("keys", f"{len(history.keys)} keys are too many: {why}, name {most} at most")
