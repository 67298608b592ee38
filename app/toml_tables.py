"""Reads TOML files that are a list of tables: keys, upstreams. No fault shows what is in them."""

import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import ConfigurationError

LONGEST_FILE_BYTES = 64 << 20
#: Where in the file TOML's own fault is; the rest of that message may quote the file.
PLACE = re.compile(r"\((at [a-z0-9, ]+)\)")


class FileFault(ConfigurationError):
    """The file cannot be used; each fault says why, without a path."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


def read(path: Path) -> bytes:
    """Return the bytes of the file.

    Raises:
        FileFault: it cannot be read, or is no file of a sensible size.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileFault("is not a regular file")
        if found.st_size > LONGEST_FILE_BYTES:
            raise FileFault(f"is larger than {LONGEST_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise FileFault(f"cannot be read ({error.strerror})") from None


def tables_of(data: bytes, name: str) -> list[Any]:
    """Return the tables of this name, at least one.

    Raises:
        FileFault: there are none, or the file holds more.
    """
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        place = PLACE.search(str(error))
        raise FileFault(f"is not valid TOML{f' ({place[1]})' if place else ''}") from None
    unknown = sorted(document.keys() - {name})
    if unknown:
        raise FileFault(*(f"{other}: unknown field" for other in unknown))
    tables = document.get(name)
    if not isinstance(tables, list) or not tables:
        raise FileFault(f"{name}: needs at least one [[{name}]] table")
    return tables


def faults_of(error: ValidationError) -> Iterator[str]:
    """Yield `.field: issue` for each fault, or `: issue` for one of the whole entry."""
    for fault in error.errors():
        is_unknown = fault["type"] == "extra_forbidden"
        issue = "unknown field" if is_unknown else str(fault["msg"]).removeprefix("Value error, ")
        yield "".join(f".{part}" for part in fault["loc"]) + f": {issue}"
