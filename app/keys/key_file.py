"""Reads the TOML file of keys, whole or not at all; faults are named by field and never show a value."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from app.keys.entries import KeyEntry
from app.toml_tables import FileFault, faults_of, tables_of
from app.upstream_settings import DEFAULT_UPSTREAM

MOST_FAULTS_TOLD = 20
HEADER = re.compile(r"^[ \t]*\[\[[ \t]*keys[ \t]*\]\]", re.MULTILINE)

#: A table with its text, where it was read by itself.
Table = tuple[str, Any]


def parse(
    data: bytes, *, upstreams: frozenset[str] | None = None, known: dict[str, KeyEntry] | None = None
) -> tuple[KeyEntry, ...]:
    """Return the entries of a key file, at least one.

    Args:
        upstreams: those that a key may name: a key for another one could only ever fail. None: whoever
            serves the keys will know.
        known: entries of an earlier reading by their text, which need not be read again; becomes this one's.

    Raises:
        FileFault: naming each fault.
    """
    known = {} if known is None else known
    tables = _tables_one_by_one(data, known) or [("", table) for table in tables_of(data, "keys")]
    faults: list[str] = []
    entries: list[KeyEntry] = []
    for number, (_, table) in enumerate(tables):
        # One by one: pydantic holds the interpreter's lock while it works, and the event loop waits for it.
        try:
            entries.append(table if isinstance(table, KeyEntry) else KeyEntry.model_validate(table))
        except ValidationError as error:
            faults += [f"keys.{number}{fault}" for fault in faults_of(error)]
    faults += _faults_among(entries)
    if upstreams is not None:
        faults += _lost(entries, upstreams)
    if faults:
        hidden = len(faults) - MOST_FAULTS_TOLD
        told = faults[:MOST_FAULTS_TOLD] + ([f"and {hidden} more"] if hidden > 0 else [])
        raise FileFault(*told)
    known.clear()
    known |= {source: entry for (source, _), entry in zip(tables, entries, strict=True) if source}
    return tuple(entries)


def _tables_one_by_one(data: bytes, known: dict[str, KeyEntry]) -> list[Table] | None:
    """Return each table, or what it was read as before; None where the file is more than a row of tables.

    With 10,000 keys this makes reading a change 20 times faster than reading the whole. Pieces that are good
    TOML by themselves mean the same one after another: a string or a list that goes on over a header is none.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    starts = [found.start() for found in HEADER.finditer(text)]
    lines = text[: starts[0] if starts else None].splitlines()
    if any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        return None
    tables: list[Table] = []
    for start, end in itertools.pairwise([*starts, len(text)]):
        source = text[start:end]
        if source in known:
            tables.append((source, known[source]))
            continue
        try:
            document = tomllib.loads(source)
        except (ValueError, RecursionError):
            return None
        if document.keys() != {"keys"}:
            return None
        tables.append((source, document["keys"][0]))
    return tables


def _faults_among(entries: list[KeyEntry]) -> Iterator[str]:
    ids: set[str] = set()
    digests: set[str] = set()
    for entry in entries:
        if entry.id in ids:
            yield f"two keys share one id ({entry.id})"
        ids.add(entry.id)
        for digest in entry.digests:
            if digest in digests:
                yield f"two keys share one sha256 (one of them is {entry.id})"
            digests.add(digest)


def _lost(entries: list[KeyEntry], upstreams: frozenset[str]) -> Iterator[str]:
    for entry in entries:
        if entry.upstream not in upstreams:
            issue = "is needed, as there is no default" if entry.upstream == DEFAULT_UPSTREAM else "unknown"
            yield f"key {entry.id}: upstream: {issue}; known are {', '.join(sorted(upstreams))}"
