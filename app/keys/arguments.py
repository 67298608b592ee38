"""The arguments of `python -m app keys ...`, and what they say about a key."""

import argparse
import re
from argparse import ArgumentParser
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.keys import key_format
from app.keys.entries import KeyEntry, parse_moment
from app.upstream_settings import DEFAULT_UPSTREAM

DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
OVERLAP = timedelta(days=7)
#: How shells complete a path: `shtab` looks for it on the argument.
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files"}
#: Where an argument is not called like the field it fills.
OPTIONS = {
    "name": "NAME",
    "devices": "--device",
    "device_types": "--device-type",
    "expires_at": "--expires",
    "allowed_ips": "--allowed-ip",
    "allowed_origins": "--allowed-origin",
}


class BadArgument(Exception):
    """Names the argument and what is wrong with it."""


def add_to(commands: "argparse._SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its actions."""
    keys = commands.add_parser("keys", help="make, list and change API keys in a key file")
    actions = keys.add_subparsers(dest="action", required=True)
    file = ArgumentParser(add_help=False)
    path = file.add_argument("--file", type=Path, help="the key file (API_KEYS_FILE by default)")
    path.complete = FILES  # type: ignore[attr-defined]  # argparse has no name for it
    printing = ArgumentParser(add_help=False)
    printing.add_argument(
        "--print",
        action="store_true",
        dest="print_only",
        help="write no file: tell the entry to put into it, for a file that is read-only here",
    )
    as_json = ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="as JSON")
    one = ArgumentParser(add_help=False)
    one.add_argument("key", metavar="KEY", help="id or name of a key")

    _add_create(actions.add_parser("create", parents=[file, printing], help="make a key and print it once"))
    actions.add_parser("list", parents=[file, as_json], help="list the keys")
    actions.add_parser("show", parents=[one, file, as_json], help="show one key")
    rotate = actions.add_parser("rotate", parents=[one, file, printing], help="give a key another secret")
    end = rotate.add_mutually_exclusive_group()
    end.add_argument("--overlap", metavar="TIME", help="how long the old secret works on, such as 12h (7d)")
    end.add_argument("--now", action="store_true", help="the old secret ends at once")
    rotate.add_argument(
        "--expires", metavar="TIME", help="the key's new end: 90d, or ISO 8601 with an offset"
    )
    actions.add_parser("disable", parents=[one, file, printing], help="refuse a key from now on")
    actions.add_parser("enable", parents=[one, file, printing], help="accept a disabled key again")
    actions.add_parser(
        "verify", parents=[file], help="read a key from standard input, say whose it is and whether it works"
    )


def _add_create(create: ArgumentParser) -> None:
    create.add_argument("name", metavar="NAME", help="for people: who holds the key")
    create.add_argument("--id", help="for logs: letters, digits and -, at most 32 (random by default)")
    create.add_argument(
        "--scopes", action="append", required=True, metavar="LIST", help="such as devices:read,telemetry:read"
    )
    create.add_argument(
        "--device", dest="devices", metavar="UUID", help="only this device; repeatable", action="append"
    )
    create.add_argument(
        "--device-type",
        dest="device_types",
        metavar="TYPE",
        help="only devices of it; repeatable",
        action="append",
    )
    create.add_argument("--customer", metavar="UUID", help="only what belongs to this customer")
    create.add_argument("--asset", metavar="UUID", help="only this asset and what lies below it")
    create.add_argument(
        "--rate-limit", metavar="LIMITS", help="its own limits: 600/minute, 10/second;1000/hour"
    )
    create.add_argument("--max-streams", type=int, metavar="N", help="streams open at once")
    create.add_argument(
        "--expires", dest="expires_at", metavar="TIME", help="90d, or ISO 8601 with an offset"
    )
    create.add_argument("--not-before", metavar="TIME", help="when it begins to work: as --expires")
    create.add_argument(
        "--allowed-ip",
        dest="allowed_ips",
        metavar="CIDR",
        help="only from there; repeatable",
        action="append",
    )
    create.add_argument(
        "--allowed-origin",
        dest="allowed_origins",
        metavar="ORIGIN",
        help="only by its pages; repeatable",
        action="append",
    )
    create.add_argument("--upstream", default=DEFAULT_UPSTREAM, help="which ThingsBoard login serves it")
    create.add_argument("--description", default="", help="for people")


def entry_of(given: argparse.Namespace, key_id: str, digest: str, now: datetime) -> KeyEntry:
    """Return the entry that the arguments of `create` describe.

    Raises:
        BadArgument: naming each argument at fault.
    """
    fields: dict[str, Any] = {
        name: value
        for name, value in vars(given).items()
        if name in KeyEntry.model_fields and value is not None
    }
    fields |= {"id": key_id, "sha256": digest, "created": now}
    fields["scopes"] = [scope.strip() for text in given.scopes for scope in text.split(",") if scope.strip()]
    for name in ("not_before", "expires_at"):
        if name in fields:
            fields[name] = moment_of(OPTIONS.get(name, "--not-before"), fields[name], now)
    try:
        entry = KeyEntry.model_validate(fields)
    except ValidationError as error:
        # A list whose only item is at fault is told to be too short, too: the first fault says what is wrong.
        first: dict[Any, str] = {}
        for fault in error.errors():
            first.setdefault(fault["loc"][:1], _told(fault))
        raise BadArgument("\n".join(first.values())) from None
    check_expiry(entry.expires_at, now)
    return entry


def _told(fault: Any) -> str:
    issue = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return issue
    field = str(fault["loc"][0])
    option = OPTIONS.get(field, "--" + field.replace("_", "-"))
    return f"{option}: {issue}"


def key_id_of(given: argparse.Namespace) -> str:
    """Return the id for a new key: its own part of the key must not hold a `_`."""
    if given.id is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,32}", given.id):
        raise BadArgument("--id: must be letters, digits and -, at most 32")
    return given.id or key_format.make_id()


def check_expiry(moment: datetime | None, now: datetime) -> None:
    """Refuse an end that is over."""
    if moment is not None and moment <= now:
        raise BadArgument("--expires: must be in the future")


def moment_of(option: str, text: str, now: datetime) -> datetime:
    """Read a time from now or a date."""
    duration = DURATION.fullmatch(text)
    try:
        return parse_moment(text) if duration is None else now + _timedelta(duration)
    except (ValueError, OverflowError):
        raise BadArgument(
            f"{option}: must be a time from now such as 90d, or a date with time and offset "
            "such as 2027-01-31T00:00:00Z"
        ) from None


def expiry_of(given: argparse.Namespace, now: datetime) -> datetime | None:
    """Return the new end that `rotate --expires` asks for."""
    if given.expires is None:
        return None
    moment = moment_of("--expires", given.expires, now)
    check_expiry(moment, now)
    return moment


def overlap_of(given: argparse.Namespace) -> timedelta:
    """Return how long the old secret works on."""
    if given.now:
        return timedelta()
    if given.overlap is None:
        return OVERLAP
    duration = DURATION.fullmatch(given.overlap)
    if duration is None:
        raise BadArgument("--overlap: must be a number and a unit (s m h d w), such as 12h")
    return _timedelta(duration)


def _timedelta(duration: re.Match[str]) -> timedelta:
    return timedelta(**{UNITS[duration[2]]: int(duration[1])})
