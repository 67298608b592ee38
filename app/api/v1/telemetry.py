"""Telemetry of one device or asset, read: keys, latest values, history, counts and queries."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from pydantic import StringConstraints, WithJsonSchema
from starlette.responses import Response

from app import key_names
from app.api.entities import ASSET, DEVICE, Entity, Kind, entity_in_path
from app.api.envelope import success, tagged
from app.api.etags import revalidated
from app.api.route import requires, versioned_router
from app.api.streaming import BINARY, StreamedAnswer
from app.deps import UpstreamDep
from app.errors import InvalidRequest, UnprocessableRequest
from app.schemas.telemetry import (
    CountAnswer,
    HistoryAnswer,
    KeyList,
    LatestAnswer,
    QueryAnswer,
    TelemetryQuery,
)
from app.services import point_queries
from app.services.exact_aggregates import count_points
from app.services.exports import CSVLong, CSVWide, JSONLines, json_stream, row_stream
from app.services.history import History
from app.services.latest import latest_of
from app.services.point_queries import Question
from app.services.xlsx import workbook_stream
from app.times import parse_range

SCOPE = requires("telemetry:read")
#: A wide row has a cell for each key, and a workbook a sheet: both are held to what is readable.
MOST_COLUMNS, MOST_SHEETS = 1_000, 250
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": BINARY,
}

KeysQuery = Annotated[
    str | None,
    Query(
        alias="keys",
        description="Keys, separated by commas; all keys when left out.",
        examples=["temperature"],
    ),
]
TimeQuery = Annotated[
    str | None,
    StringConstraints(max_length=64),
    WithJsonSchema({"type": "integer", "format": "int64"}),
]
StartQuery = Annotated[
    TimeQuery, Query(description="First moment: ms since the epoch or ISO 8601. 0 unless given.")
]
EndQuery = Annotated[
    TimeQuery, Query(description="End, exclusive: ms since the epoch or ISO 8601. Now unless given.")
]
Format = Literal["json", "csv", "jsonl", "xlsx"]


async def named_keys(keys: KeysQuery = None) -> list[str] | None:
    """Read the list of keys, each once."""
    if keys is None:
        return None
    # As they are: a blank at an edge may belong to the key, and ` lead` is not `lead`.
    named = [key for key in dict.fromkeys(keys.split(",")) if key]
    if not named:
        issue = "must name at least one key; leave it out for all keys"
        raise UnprocessableRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})
    for issue in filter(None, map(key_names.find_fault, named)):
        raise UnprocessableRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})
    return named


async def span_of_query(start_ts: StartQuery = None, end_ts: EndQuery = None) -> tuple[int, int]:
    """Read the range, everything up to now unless given."""
    return parse_range(start_ts, end_ts, default_start=0)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a history is to be written, besides its format."""

    keys: list[str] | None
    span: tuple[int, int]
    is_wide: bool
    raw: bool
    accept_encoding: str | None


async def read_wishes(
    keys: Annotated[list[str] | None, Depends(named_keys)],
    span: Annotated[tuple[int, int], Depends(span_of_query)],
    layout: Annotated[
        Literal["long", "wide"],
        Query(description="CSV only. `long`: `ts,key,value`; `wide`: a column a key, a row a time."),
    ] = "long",
    raw: Annotated[
        bool, Query(description="CSV only. Leave text that a spreadsheet would run as a formula as it is.")
    ] = False,
    accept_encoding: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Wishes:
    """Read what both history routes take."""
    return Wishes(keys, span, layout == "wide", raw, accept_encoding)


WishesDep = Annotated[Wishes, Depends(read_wishes)]
KeysDep = Annotated[list[str] | None, Depends(named_keys)]
SpanDep = Annotated[tuple[int, int], Depends(span_of_query)]


def _add_values(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/keys",
        operation_id=kind.operation("list_{}telemetry_keys"),
        summary=f"List the telemetry keys of a {kind.word}",
        responses=revalidated(KeyList),
        openapi_extra=SCOPE,
    )
    async def list_telemetry_keys(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)]
    ) -> Response:
        """Return the keys that have ever had a value and were not deleted."""
        return tagged({**entity.identified, "keys": await upstream.telemetry.keys(entity.type, entity.id)})

    @routes.get(
        f"{kind.path}/telemetry/latest",
        operation_id=kind.operation("get_{}latest_telemetry"),
        summary=f"Get the latest values of a {kind.word}",
        responses=revalidated(LatestAnswer),
        openapi_extra=SCOPE,
    )
    async def get_latest_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], keys: KeysDep
    ) -> Response:
        """Return the newest point of each key with the type it was stored with; null for an unknown key."""
        values = await latest_of(upstream, (entity.type, entity.id), keys)
        return tagged({**entity.identified, "keys_requested": keys or list(values), "data": values})


def _add_history(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/telemetry",
        operation_id=kind.operation("get_{}telemetry"),
        summary=f"Get the history of a {kind.word}",
        responses={200: {"model": HistoryAnswer}},
        openapi_extra=SCOPE,
    )
    async def get_telemetry(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        wishes: WishesDep,
        file_format: Annotated[
            Literal["json", "csv", "jsonl", "xlsx"],
            Query(alias="format", description="`json` unless given; the others are the files of `/export`."),
        ] = "json",
    ) -> Response:
        """Return every point of a range, oldest first, however many there are, as a stream.

        An unknown key has an empty list. A stream that fails underway ends without its last chunk, so that a
        half answer is never taken for a whole one.
        """
        return await stream_history(upstream, entity, wishes, file_format)

    @routes.get(
        f"{kind.path}/telemetry/export",
        operation_id=kind.operation("export_{}telemetry"),
        summary=f"Export the history of a {kind.word} as a file",
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
        entity: Annotated[Entity, Depends(find)],
        wishes: WishesDep,
        file_format: Annotated[
            Literal["csv", "jsonl", "xlsx"],
            Query(
                alias="format",
                description="`csv` (RFC 4180), `jsonl` (an object a line) or `xlsx` (a sheet a key).",
            ),
        ] = "csv",
    ) -> Response:
        """Return every point of a range, oldest first, however many there are, as a file to keep.

        Rows are in the order of time. In CSV, text that a spreadsheet would run as a formula gets a `'` in
        front; `raw=true` leaves it. A workbook is sent when it is complete; the others begin at once.
        """
        return await stream_history(upstream, entity, wishes, file_format)


def _add_query(routes: APIRouter, kind: Kind) -> None:
    find = entity_in_path(kind)

    @routes.get(
        f"{kind.path}/telemetry/count",
        operation_id=kind.operation("count_{}telemetry"),
        summary=f"Count the points of a {kind.word}",
        responses={200: {"model": CountAnswer}},
        openapi_extra=SCOPE,
    )
    async def count_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], keys: KeysDep, span: SpanDep
    ) -> Response:
        """Return how many points each key has in a range: what an export of it would hold.

        Beyond 200,000 points, all keys together, the longest ones are not looked through. ThingsBoard's count
        of such a key is too low if its values are of mixed types: `exact` is then false, and
        `at_least` names the keys.
        """
        found = await count_points(upstream, (entity.type, entity.id), keys, span)
        return success({**entity.identified, **found.answer})

    @routes.post(
        f"{kind.path}/telemetry/query",
        operation_id=kind.operation("query_{}telemetry"),
        summary=f"Query points or aggregates of a {kind.word}",
        responses={200: {"model": QueryAnswer}},
        openapi_extra=SCOPE,
    )
    async def query_telemetry(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], query: TelemetryQuery
    ) -> Response:
        """Return a page of points, or of AVG, MIN, MAX, SUM or COUNT by interval, by key.

        A bucket is `{"ts": start, "end_ts": end, "value"}`, clipped to the range; days, weeks and months
        follow the clock changes of `time_zone`. An average or sum of values that are not numbers is null, and
        `warnings` says so. `metadata.truncated` says whether there is more: send the same query again with
        `cursor` set to `metadata.next_cursor`.
        """
        found = await point_queries.answer(upstream, (entity.type, entity.id), Question.of(query))
        return success({**entity.identified, **found})


async def stream_history(
    upstream: UpstreamDep, entity: Entity, wishes: Wishes, file_format: Format
) -> Response:
    """Check the entity, read the first page, and answer the rest as it comes."""
    if file_format != "csv" and (wishes.is_wide or wishes.raw):
        field = "raw" if wishes.raw else "layout"
        raise InvalidRequest(
            f"{field}: is for CSV only", details={"field": field, "issue": "is for CSV only"}
        )
    history = await History.open(upstream, (entity.type, entity.id), wishes.keys, wishes.span)
    return StreamedAnswer(
        _pieces(history, entity, wishes, file_format),
        media_type=MEDIA_TYPES[file_format],
        accept_encoding=wishes.accept_encoding,
        filename=None if file_format == "json" else f"telemetry-{entity.id}.{file_format}",
    )


def _pieces(
    history: History, entity: Entity, wishes: Wishes, file_format: Format
) -> AsyncGenerator[bytes, None]:
    if file_format == "json":
        return json_stream(history, entity.identified)
    if file_format == "jsonl":
        return row_stream(history, JSONLines())
    if file_format == "xlsx":
        _check_count(history, MOST_SHEETS, "a workbook has a sheet a key")
        return workbook_stream(history)
    if wishes.is_wide:
        _check_count(history, MOST_COLUMNS, "a wide table has a column a key")
        return row_stream(history, CSVWide(history.keys, raw=wishes.raw))
    return row_stream(history, CSVLong(raw=wishes.raw))


def _check_count(history: History, most: int, why: str) -> None:
    if len(history.keys) > most:
        issue = f"{len(history.keys)} keys are too many: {why}, name {most} at most"
        raise InvalidRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})


router = versioned_router("telemetry")
for each_kind in (DEVICE, ASSET):
    _add_values(router, each_kind)
    _add_history(router, each_kind)
    _add_query(router, each_kind)
