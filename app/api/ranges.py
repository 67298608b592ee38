"""The keys and the range of times in queries for telemetry."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import StringConstraints, WithJsonSchema

from app import key_names
from app.errors import UnprocessableRequest
from app.times import parse_range

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


KeysDep = Annotated[list[str] | None, Depends(named_keys)]
SpanDep = Annotated[tuple[int, int], Depends(span_of_query)]
