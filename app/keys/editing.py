"""Changes a key file as a careful person would: other lines stay as they are, and no state of it is half."""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, Comment, InlineTable, Table, Whitespace

from app import toml_tables
from app.keys import key_file
from app.keys.entries import KeyEntry, Secret

LOCK_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.05
#: The old secret and the new one. A third would hide which of them are still in use.
MOST_LIVE_SECRETS = 2
LONGEST_LINE = 100
SECONDS = "%Y-%m-%dT%H:%M:%SZ"
NEW_FILE = "# The keys of the gateway: `python -m app keys` edits this file, and so may you.\n"


class CannotEdit(Exception):
    """The change cannot be made; the message says why, for the person at the terminal."""


def find(entries: tuple[KeyEntry, ...], wanted: str) -> int:
    """Return the place of the key with this id or, where only one has it, this name."""
    places = [place for place, entry in enumerate(entries) if entry.id == wanted]
    places = places or [place for place, entry in enumerate(entries) if entry.name == wanted]
    if not places:
        raise CannotEdit(f"no key has the id or the name {wanted!r}")
    if len(places) > 1:
        ids = ", ".join(entries[place].id for place in places)
        raise CannotEdit(f"{len(places)} keys have the name {wanted!r}: use an id ({ids})")
    return places[0]


def entries_of(data: bytes) -> tuple[KeyEntry, ...]:
    """Return the entries of a file that may still be without any."""
    lines = (line.strip() for line in data.splitlines())
    return key_file.parse(data) if any(line and not line.startswith(b"#") for line in lines) else ()


def render(entry: KeyEntry) -> str:
    """Return the entry as a `[[keys]]` table to put into a file."""
    given = entry.model_dump(exclude_defaults=True)
    table = tomlkit.table()
    for name, value in given.items():
        table[name] = _item(name, value)
    return _render_table(table)


def with_entry(data: bytes, entry: KeyEntry) -> bytes:
    """Return the file with one more entry at its end."""
    if any(known.name == entry.name for known in entries_of(data)):
        raise CannotEdit(f"a key has the name {entry.name!r} already: choose another one, or rotate it")
    text = data.decode() or NEW_FILE
    ending = "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{ending}{render(entry)}".encode()


def changed(data: bytes, wanted: str, change: Callable[[Table, KeyEntry], None]) -> tuple[bytes, str]:
    """Return the file with one entry changed, and that entry alone."""
    before = key_file.parse(data)
    place = find(before, wanted)
    document = tomlkit.parse(data.decode())
    tables = document["keys"]
    if not isinstance(tables, AoT):
        raise CannotEdit("keys is a list in one piece: write [[keys]] tables, or edit it by hand")
    change(tables[place], before[place])
    text = tomlkit.dumps(document)
    after = key_file.parse(text.encode())
    if before[:place] + before[place + 1 :] != after[:place] + after[place + 1 :]:
        raise CannotEdit("other keys would change with it: edit the file by hand")
    _take_tail(tables[place])
    return text.encode(), _render_table(tables[place])


def set_disabled(table: Table, *, disabled: bool) -> None:
    """Write whether the key is disabled."""
    _put(table, "disabled", disabled)


def set_expiry(table: Table, moment: datetime) -> None:
    """Write when the key ends."""
    _put(table, "expires_at", moment)


def rotate(table: Table, entry: KeyEntry, digest: str, now: datetime, overlap: timedelta) -> None:
    """Give the key another secret; the one it has works on for this long, 0 being not at all."""
    live = entry.live_secrets(now) if overlap else []
    if len(live) >= MOST_LIVE_SECRETS:
        ends = min((f"{each.expires_at:{SECONDS}}" for each in live if each.expires_at), default="never")
        raise CannotEdit(
            f"{entry.name!r} has {len(live)} live secrets already, the next one to end: {ends}; "
            "wait for that, or end them all with --now"
        )
    if not live and entry.sha256 is not None:
        table["sha256"] = digest
        return
    end = now + overlap
    ending = [each.model_copy(update={"expires_at": min(each.expires_at or end, end)}) for each in live]
    rows = [each.model_dump(exclude_none=True) for each in (*ending, Secret(sha256=digest, created=now))]
    if "sha256" in table:
        table.remove("sha256")
    _put(table, "secrets", _item("secrets", rows))


def _put(table: Table, name: str, value: Any) -> None:
    """Set a field before the comments above the next key, which tomlkit counts to what they follow."""
    before = table.get(name)
    tail = _take_tail(before[-1] if isinstance(before, AoT) else table)
    table[name] = value
    for item in tail:
        table.add(item)


def _take_tail(table: Table) -> list[Any]:
    """Remove and return the comments and blank lines that end a table."""
    body = table.value.body
    tail: list[Any] = []
    while body and body[-1][0] is None:
        item = body.pop()[1]
        # A field that was removed leaves an empty item behind.
        if isinstance(item, Comment | Whitespace):
            tail.insert(0, item)
    return tail


def _item(name: str, value: Any) -> Any:
    """Return a value as TOML, long lists with one element a line."""
    if not isinstance(value, list | tuple):
        return value
    array = tomlkit.array()
    for element in value:
        # Networks are text in the file.
        array.append(_inline(element) if isinstance(element, dict) else str(element))
    if len(f"{name} = {array.as_string()}") > LONGEST_LINE:
        array.multiline(multiline=True)
    return array


def _inline(fields: dict[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update(fields)
    return table


def _render_table(table: Table) -> str:
    tables = tomlkit.aot()
    tables.append(table)
    document = tomlkit.document()
    document["keys"] = tables
    return tomlkit.dumps(document)


def edit(path: Path, change: Callable[[bytes], bytes], *, may_create: bool = False) -> None:
    """Replace the file by what `change` makes of it, unless that is no good key file.

    Readers see the old file or the new one. Other edits by this function wait.

    Raises:
        CannotEdit, toml_tables.FileFault: nothing has changed.
    """
    # A link keeps pointing at the file it points at.
    target = path.resolve()
    try:
        with _locked(target.parent):
            is_new = may_create and not target.exists()
            data = change(b"" if is_new else toml_tables.read(target))
            key_file.parse(data)
            _replace(target, data)
    except OSError as error:
        raise CannotEdit(
            f"{path} cannot be written ({error.strerror}): --print gives the entry to put where it comes from"
        ) from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the file itself is another one after each edit."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CannotEdit("another edit is under way: try again") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, data: bytes) -> None:
    """Write beside the file and rename; owner and mode stay, a new file is for its owner only."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if target.exists():
                found = target.stat()
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    # Else the gateway, under another user, could no longer read it.
                    os.fchown(descriptor, found.st_uid, found.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
