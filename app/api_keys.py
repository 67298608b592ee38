"""The API keys this gateway knows, by digest: one from `API_KEY`, or many from `API_KEYS_FILE`."""

import hashlib
import hmac
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from app.context import Caller
from app.errors import ConfigurationError
from app.settings import Settings

#: What a key may be allowed to do; each route declares the ones it needs.
SCOPES = frozenset(
    {
        "alarms:read",
        "alarms:write",
        "assets:read",
        "assets:write",
        "attributes:read",
        "attributes:write",
        "devices:credentials",
        "devices:read",
        "devices:write",
        "relations:read",
        "relations:write",
        "rpc:send",
        "telemetry:delete",
        "telemetry:read",
        "telemetry:write",
    }
)
ALL = "*"


class KeyEntry(BaseModel):
    """One `[[keys]]` table. An unknown field is refused: a restriction must never be ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True)]
    scopes: Annotated[tuple[str, ...], Field(min_length=1)]
    description: str = ""

    @field_validator("scopes")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - SCOPES - {ALL})
        if unknown:
            raise ValueError(
                f"unknown scope {', '.join(unknown)}; known are {', '.join(sorted(SCOPES))} and *"
            )
        return value


class KeyFile(BaseModel):
    """The whole TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: Annotated[tuple[KeyEntry, ...], Field(min_length=1)]


class APIKeys:
    """Finds the caller of a presented key. Immutable, so all requests share it."""

    def __init__(self, entries: tuple[KeyEntry, ...]) -> None:
        self._callers = tuple(
            (
                bytes.fromhex(entry.sha256),
                Caller(entry.id, entry.name, SCOPES if ALL in entry.scopes else frozenset(entry.scopes)),
            )
            for entry in entries
        )

    def find_caller(self, presented: bytes) -> Caller | None:
        """Return who holds this key, or None. Takes the same time for every key, known or not."""
        digest = hashlib.sha256(presented).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def load(settings: Settings) -> APIKeys:
    """Build the key store, or raise ConfigurationError naming what is wrong with the file."""
    if settings.api_keys_file is not None:
        return APIKeys(read_file(settings.api_keys_file))
    if settings.api_key is None:
        raise ConfigurationError("API_KEY or API_KEYS_FILE is needed")
    digest = hashlib.sha256(settings.api_key.get_secret_value().encode()).hexdigest()
    return APIKeys((KeyEntry(name="API_KEY", id="default", sha256=digest, scopes=(ALL,)),))


def read_file(path: Path) -> tuple[KeyEntry, ...]:
    """Read `[[keys]]` tables of `name`, `id`, `sha256` and `scopes`."""
    try:
        entries = KeyFile.model_validate(tomllib.loads(path.read_text("utf-8"))).keys
    except OSError as error:
        raise ConfigurationError(f"API_KEYS_FILE: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigurationError("API_KEYS_FILE: is not valid TOML") from None
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError("API_KEYS_FILE: " + "; ".join(faults)) from None
    for field in ("id", "sha256"):
        values = [getattr(entry, field) for entry in entries]
        if len(values) != len(set(values)):
            raise ConfigurationError(f"API_KEYS_FILE: two keys share one {field}")
    return entries
