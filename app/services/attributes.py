"""Attributes: read by scope, written with the same care for values as telemetry, deleted."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import InvalidRequest
from app.services.uploads import (
    LONGEST_FIELD,
    MOST_FAULTS,
    Document,
    empty_upload,
    off_the_loop,
    refused,
    split_keys,
)
from app.services.values import Assay, InexactError, UnstorableError, Warnings, find_key_fault
from app.thingsboard.attributes import SCOPES, AttributeScope
from app.thingsboard.client import ThingsBoardClient

Attributes = dict[str, dict[str, Any]]
#: What errors call a whole body of attributes.
ATTRIBUTES = "attributes"


async def read(
    upstream: ThingsBoardClient,
    entity_type: str,
    entity_id: str,
    scope: AttributeScope,
    keys: Sequence[str] | None = None,
) -> Attributes:
    """Return `{"key":{"value","last_update_ts"}}`; keys that the entity does not have are left out."""
    rows = await upstream.attributes.read(entity_type, entity_id, scope, keys)
    return {row["key"]: {"value": row["value"], "last_update_ts": row["lastUpdateTs"]} for row in rows}


async def read_some(
    upstream: ThingsBoardClient, entity_type: str, entity_id: str, scope: AttributeScope, keys: str | None
) -> Attributes:
    """Return the attributes named by a comma list, or all of them."""
    names = None if keys is None else split_keys(keys)
    return await read(upstream, entity_type, entity_id, scope, names)


async def read_all(upstream: ThingsBoardClient, entity_type: str, entity_id: str) -> dict[str, Attributes]:
    """Return the attributes of each scope."""
    found = await asyncio.gather(*(read(upstream, entity_type, entity_id, scope) for scope in SCOPES))
    return dict(zip(SCOPES, found, strict=True))


@dataclass(frozen=True, slots=True)
class Written:
    """What one call wrote."""

    keys: list[str]
    warnings: list[dict[str, str]]


async def write(
    upstream: ThingsBoardClient, entity_type: str, entity_id: str, scope: AttributeScope, body: bytes
) -> Written:
    """Write the attributes of a JSON object."""
    encoded, written = await off_the_loop(body, _read_body)
    await upstream.attributes.save(entity_type, entity_id, scope, encoded)
    return written


def _read_body(body: bytes) -> tuple[bytes, Written]:
    if not body or body.isspace():
        raise empty_upload(ATTRIBUTES)
    document = Document(body)
    try:
        return _read(document.value, is_exact=False)
    except InexactError:
        return _read(document.exact(), is_exact=True)


def _read(attributes: Any, *, is_exact: bool) -> tuple[bytes, Written]:
    if attributes is None or attributes in ({}, []):
        raise empty_upload(ATTRIBUTES)
    if not isinstance(attributes, dict):
        raise refused(ATTRIBUTES, "must be a JSON object of values by key")
    warnings = Warnings()
    take = Assay(warnings, is_exact=is_exact).take
    taken: dict[str, Any] = {}
    faults: list[dict[str, str]] = []
    for key, value in attributes.items():
        try:
            fault = find_key_fault(key)
            taken[key] = take(key, value) if fault is None else None
        except UnstorableError as error:
            fault = str(error)
        if fault is not None:
            faults.append({"field": key[:LONGEST_FIELD] or ATTRIBUTES, "issue": fault})
    if faults:
        raise _refusal(faults)
    return orjson.dumps(taken), Written(list(taken), warnings.listed())


def _refusal(faults: list[dict[str, str]]) -> InvalidRequest:
    error = refused(**faults[0])
    error.details = {**(error.details or {}), "errors": faults[:MOST_FAULTS]}
    return error


async def delete(
    upstream: ThingsBoardClient, entity_type: str, entity_id: str, scope: AttributeScope, keys: str
) -> list[str]:
    """Delete the attributes named by a comma list, and return their keys."""
    names = split_keys(keys)
    await upstream.attributes.delete(entity_type, entity_id, scope, names)
    return names
