"""`python -m app keys ...`: a new key goes to standard output alone, all words about it to standard error."""

import argparse
import getpass
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tomlkit.items import Table

from app import settings, toml_tables, upstream_file
from app.keys import arguments, editing, key_file
from app.keys.arguments import BadArgument
from app.keys.editing import CannotEdit
from app.keys.entries import KeyEntry
from app.keys.key_format import checksum_fits, make_key
from app.keys.key_ring import HeldKey, Refusal
from app.keys.store import APIKeys
from app.times import iso_of, ms_of
from app.toml_tables import FileFault
from app.upstream_settings import DEFAULT_UPSTREAM

#: Exit codes: it could not be done (`verify`: the key does not work); the arguments or the file are at fault.
FAILED, MISUSED = 1, 2
LONGEST_KEY = 4096
REFUSALS = {
    Refusal.UNKNOWN: "no entry has this key",
    Refusal.MISTYPED: "mistyped: its checksum is wrong",
    Refusal.DISABLED: "disabled",
    Refusal.NOT_YET_VALID: "not valid yet",
    Refusal.EXPIRED: "expired",
    Refusal.ROTATED: "its key was rotated, and the time for the old secret is over",
}


def run(given: argparse.Namespace) -> int:
    """Carry out a command; return its exit code."""
    actions = {
        "create": create,
        "list": list_keys,
        "show": show,
        "rotate": rotate,
        "disable": disable,
        "enable": enable,
        "verify": verify,
    }
    try:
        return actions[given.action](given)
    except BadArgument as error:
        tell(*(f"❌ {line}" for line in str(error).splitlines()))
        return MISUSED
    except FileFault as error:
        tell(*(f"❌ {given.file}: {fault}" for fault in error.faults))
        return MISUSED
    except CannotEdit as error:
        tell(f"❌ {error}")
        return FAILED


def create(given: argparse.Namespace) -> int:
    """Make a key."""
    now = present()
    key_id = arguments.key_id_of(given)
    key = make_key(key_id)
    entry = arguments.entry_of(given, key_id, digest_of(key), now)
    rendered = editing.render(entry)
    try:
        key_file.parse(rendered.encode(), upstreams=upstreams_known())
    except FileFault as error:
        raise BadArgument("\n".join(error.faults)) from None
    if given.print_only:
        tell("# Add this to the key file; the key itself is on standard output, this once.", rendered)
    else:
        path = file_of(given)
        editing.edit(path, lambda data: editing.with_entry(data, entry), may_create=True)
        tell(f"✅ {entry.name} has the id {entry.id} in {path}. The key is shown this once:")
    sys.stdout.write(key + "\n")
    return 0


def rotate(given: argparse.Namespace) -> int:
    """Give a key another secret."""
    now = present()
    overlap, expiry = arguments.overlap_of(given), arguments.expiry_of(given, now)
    keys: list[str] = []

    def change(table: Table, entry: KeyEntry) -> None:
        keys[:] = [make_key(entry.id)]
        editing.rotate(table, entry, digest_of(keys[0]), now, overlap)
        if expiry is not None:
            editing.set_expiry(table, expiry)

    entry = change_entry(given, change)
    # Beside a printed entry all else is a comment, so that the whole can go into a file.
    mark = "#" if given.print_only else "✅"
    if entry.expires_at is not None and expiry is None:
        end = iso_of(ms_of(entry.expires_at))
        tell(f"{mark} The key ends {end}, its new secret with it: --expires moves that.")
    ends = f"ends {iso_of(ms_of(now + overlap))} at the latest" if overlap else "has ended"
    tell(f"{mark} The old secret of {entry.name} {ends}. The new key is shown this once:")
    sys.stdout.write(keys[0] + "\n")
    return 0


def disable(given: argparse.Namespace) -> int:
    """Refuse a key from now on."""
    return set_disabled(given, disabled=True)


def enable(given: argparse.Namespace) -> int:
    """Accept a disabled key again."""
    return set_disabled(given, disabled=False)


def set_disabled(given: argparse.Namespace, *, disabled: bool) -> int:
    """Change whether a key is refused."""
    entry = change_entry(given, lambda table, _: editing.set_disabled(table, disabled=disabled))
    if not given.print_only:
        tell(f"✅ {entry.name} ({entry.id}): {state_of(entry, present())}")
    return 0


def change_entry(given: argparse.Namespace, change: Callable[[Table, KeyEntry], None]) -> KeyEntry:
    """Change one entry in the file, or only tell it; return it as it is then."""
    path = file_of(given)
    if given.print_only:
        data, rendered = editing.changed(toml_tables.read(path), given.key, change)
        tell("# Put this in place of the present entry:", rendered)
    else:
        written: list[bytes] = []

        def edited(data: bytes) -> bytes:
            written[:] = [editing.changed(data, given.key, change)[0]]
            return written[0]

        editing.edit(path, edited)
        data = written[0]
    entries = key_file.parse(data)
    return entries[editing.find(entries, given.key)]


def list_keys(given: argparse.Namespace) -> int:
    """List all keys."""
    now = present()
    entries = editing.entries_of(toml_tables.read(file_of(given)))
    if given.json:
        sys.stdout.write(json.dumps([public(entry, now) for entry in entries], indent=2) + "\n")
        return 0
    rows = [("ID", "NAME", "STATE", "EXPIRES", "SCOPES")]
    for entry in entries:
        end = iso_of(ms_of(entry.expires_at)) if entry.expires_at else "never"
        rows.append((entry.id, entry.name, state_of(entry, now), end, " ".join(entry.scopes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
    return 0


def show(given: argparse.Namespace) -> int:
    """Show one key."""
    entries = key_file.parse(toml_tables.read(file_of(given)))
    fields = public(entries[editing.find(entries, given.key)], present())
    if given.json:
        sys.stdout.write(json.dumps(fields, indent=2) + "\n")
        return 0
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        sys.stdout.write(f"{name}: {text}\n")
    return 0


def verify(given: argparse.Namespace) -> int:
    """Say whose key this is, and whether it works now."""
    path = file_of(given)
    entries = key_file.parse(toml_tables.read(path))
    presented = read_key()
    found = APIKeys(entries).find(presented)
    if not isinstance(found, HeldKey):
        holder = next((entry for entry in entries if entry.id == found.key_id), None)
        who = f"{holder.name} ({holder.id}): " if holder else ""
        sys.stdout.write(f"{who}refused, {REFUSALS[found.reason]}\n")
        return FAILED
    end = found.caller.expires_at
    limits = [
        f"until {iso_of(end)}" if end else "",
        f"only from {', '.join(map(str, found.allowed_ips))}" if found.allowed_ips else "",
        f"only by pages of {', '.join(sorted(found.allowed_origins))}" if found.allowed_origins else "",
    ]
    told = ", ".join(["works", *filter(None, limits)])
    form = "" if checksum_fits(presented) else ", a key of free form"
    sys.stdout.write(f"{found.caller.name} ({found.caller.id}): {told}{form}\n")
    return 0


def read_key() -> bytes:
    """Read a key from standard input: arguments are seen by everybody on the machine."""
    typed = sys.stdin.isatty()
    key = (getpass.getpass("API key: ").encode() if typed else sys.stdin.buffer.read(LONGEST_KEY)).strip()
    if not key:
        raise BadArgument("standard input: must hold a key")
    return key


def file_of(given: argparse.Namespace) -> Path:
    """Return the key file: the argument, or what the gateway itself would read."""
    if given.file is None:
        name = settings.environment().get("API_KEYS_FILE")
        if not name:
            raise BadArgument("--file: is needed, for API_KEYS_FILE is not set")
        given.file = Path(name)
    path: Path = given.file
    return path


def upstreams_known() -> frozenset[str] | None:
    """Return the upstreams that a key may name, or None where this machine cannot tell."""
    variables = settings.environment()
    default = {DEFAULT_UPSTREAM} if "TB_HOST" in variables else set()
    file = variables.get("UPSTREAMS_FILE")
    try:
        names = default | (upstream_file.names_in(Path(file)) if file else set())
    except FileFault:
        return None
    return frozenset(names) or None


def state_of(entry: KeyEntry, now: datetime) -> str:
    """Say in a word or two how the key stands."""
    live = entry.live_secrets(now)
    if entry.disabled:
        return "disabled"
    if entry.not_before is not None and entry.not_before > now:
        return "not valid yet"
    if not live or (entry.expires_at is not None and entry.expires_at <= now):
        return "expired"
    return "live" if len(live) == 1 else f"live, {len(live)} secrets"


def public(entry: KeyEntry, now: datetime) -> dict[str, Any]:
    """Return what an entry says, without its digests."""
    fields = entry.model_dump(
        mode="json", exclude_defaults=True, exclude={"sha256": True, "secrets": {"__all__": {"sha256"}}}
    )
    return {"state": state_of(entry, now), **fields}


def present() -> datetime:
    """Return the present to the second: nobody wants more in a file."""
    return datetime.now(UTC).replace(microsecond=0)


def digest_of(key: str) -> str:
    """Return what the file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def tell(*lines: str) -> None:
    """Say something to the person at the terminal."""
    for line in lines:
        sys.stderr.write(line + "\n")
