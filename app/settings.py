"""The configuration: read once from the environment and `.env`, checked as a whole, then frozen."""

import difflib
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import __version__
from app.errors import ConfigurationError
from app.quotas import parse_limits
from app.upstream_settings import UpstreamFields, no_placeholder

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Read beside the environment, which wins.
ENV_FILE = Path(".env")
MINIMUM_KEY_LENGTH = 8
#: How alike a name must be to one of ours before it counts as misspelt.
NEAR_MISS = 0.85
#: Other programs' variables that resemble ours: OpenSSL's, and the usual ones of a database.
FOREIGN_NAMES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "DB_HOST", "DB_USERNAME", "DB_PASSWORD"}

#: What `tb_password_env` and `tb_api_key_env` of UPSTREAMS_FILE usually name.
PEOPLES_OWN = ("TB_PASSWORD_", "TB_API_KEY_")


def _split_list(value: Any) -> Any:
    """Read a comma list or a JSON list."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return json.loads(text)
    return [part.strip() for part in text.split(",") if part.strip()]


StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
NetworkList = Annotated[tuple[IPNetwork, ...], NoDecode, BeforeValidator(_split_list)]


def exact_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each is what a browser would send as `Origin`."""
    for origin in value:
        parts = urlsplit(origin)
        is_whole = origin.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in {"http", "https"} or not is_whole or set(parts.netloc) & set("*@"):
            raise ValueError("must be exact origins such as https://app.example.com (no *, no path)")
    return tuple(origin.rstrip("/") for origin in value)


class Settings(UpstreamFields, BaseSettings):
    """Every setting, named like its environment variable. The description is the documentation."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        case_sensitive=False,
    )

    upstreams_file: Path | None = Field(
        default=None,
        validate_default=True,
        description="TOML file of several ThingsBoard accounts, beside `TB_HOST` or instead of it; "
        "see `docs/upstreams.md`.",
    )
    project_name: str = Field(default="ThingsBoard gateway", description="Title of the API document.")
    version: str = Field(default=__version__, description="Version told by `/health`.")
    debug: bool = Field(default=False, description="`true` logs more. Answers stay the same.")
    log_format: Literal["json", "console"] = Field(
        default="json", description="Log lines as JSON or coloured text."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="One key with all scopes: the simple case. At least 8 characters, better 32.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="TOML file of keys, followed while it changes; see `docs/api-keys.md`."
    )
    allowed_hosts: StringList = Field(
        default=("*",), description="Host names this gateway answers to; `*.example.com` and `*` work."
    )
    backend_cors_origins: StringList = Field(
        default=(), description="Exact browser origins that may call, such as `https://app.example.com`."
    )
    trusted_proxies: NetworkList = Field(
        default=(), description="Networks of reverse proxies whose `X-Forwarded-For` counts."
    )
    metrics_allowed_networks: NetworkList = Field(
        default=(), description="Networks that may read `/metrics`, besides loopback."
    )
    rate_limit: str | None = Field(
        default=None,
        description="Limits of a client address, such as `10/second;1000/hour`, in place of the next two.",
    )
    rate_limit_requests: int = Field(
        default=100, ge=1, le=999_999_999, description="Requests a client address may make in one window."
    )
    rate_limit_window: int = Field(
        default=60, ge=1, le=86_400, description="Length of the window in seconds."
    )
    rate_limit_bulk_cost: Literal["request", "devices"] = Field(
        default="request",
        description="What a call that names many devices counts as: one request, or one for each device.",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis for shared counters; needed when `WORKERS` is above 1."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes behind the one port.")
    shutdown_delay_seconds: float = Field(
        default=0,
        ge=0,
        le=60,
        description="How long it goes on serving after SIGTERM while `/health/ready` says 503, so that load "
        "balancers have stopped sending before it stops listening.",
    )
    ssl_certfile: Path | None = Field(default=None, description="Certificate chain, to serve HTTPS.")
    ssl_keyfile: Path | None = Field(default=None, description="Private key of `SSL_CERTFILE`.")
    bulk_concurrency: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Devices of one bulk or many-device call that are served at once.",
    )
    latest_cache_seconds: float = Field(
        default=0,
        ge=0,
        le=60,
        description="How old latest values may be, per worker; their `Age` header says how old they are. "
        "0 asks ThingsBoard each time.",
    )
    streams_per_key: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="Live streams and WebSockets that a key may have open at once, per worker, unless it has "
        "a `max_streams` of its own.",
    )
    stream_body_limit: int = Field(
        default=1 << 30, ge=1 << 20, description="Longest NDJSON or CSV upload in bytes, unpacked."
    )

    @field_validator("upstreams_file")
    @classmethod
    def _is_there_a_thingsboard(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        # Here and not for the whole, so that it is told beside the faults of other settings.
        if value is None and info.data.get("tb_host", "") is None:
            raise ValueError("TB_HOST: is missing (or UPSTREAMS_FILE, for several)")
        return value

    @field_validator("backend_cors_origins")
    @classmethod
    def _are_exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return exact_origins(value)

    @field_validator("rate_limit")
    @classmethod
    def _is_a_limit(cls, value: str | None) -> str | None:
        if value is not None:
            parse_limits(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in {"redis", "rediss", "unix"} or not (parts.hostname or parts.path):
                raise ValueError("must look like redis://host:6379/0")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        no_placeholder(value)
        if value is not None and len(value.get_secret_value()) < MINIMUM_KEY_LENGTH:
            raise ValueError(f"must have at least {MINIMUM_KEY_LENGTH} characters")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        misfits = list(self._misfits())
        if misfits:
            raise ValueError("\n".join(misfits))
        return self

    def _misfits(self) -> Iterator[str]:
        useless = self.model_fields_set & UpstreamFields.model_fields.keys() - {"tb_host"}
        if self.tb_host is None and useless:
            names = ", ".join(sorted(name.upper() for name in useless))
            yield f"TB_HOST: is missing, without which {names} would mean nothing"
        if self.api_key is None and self.api_keys_file is None:
            yield "API_KEY or API_KEYS_FILE is needed: without a key nobody could call"
        if self.api_key is not None and self.api_keys_file is not None:
            yield "API_KEY and API_KEYS_FILE exclude each other: set one of the two"
        if self.workers > 1 and self.redis_url is None:
            yield "WORKERS above 1 needs REDIS_URL, or each worker would count limits for itself"
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            yield "SSL_CERTFILE and SSL_KEYFILE go together"

    @property
    def default_rate_limit(self) -> str:
        """The limit of a client address, as text."""
        return self.rate_limit or f"{self.rate_limit_requests}/{self.rate_limit_window} second"


def environment(env_file: Path = ENV_FILE) -> dict[str, str]:
    """Return the variables by upper-case name, those of the process before those of the file."""
    values = {name.upper(): value for name, value in dotenv_values(env_file).items() if value}
    return values | {name.upper(): value for name, value in os.environ.items() if value}


def load(env_file: Path | None = ENV_FILE, **overrides: Any) -> Settings:
    """Read the settings, or raise one ConfigurationError that names every fault."""
    faults = list(misspelt_names(env_file))
    try:
        settings = Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        faults += map(_told, error.errors())
        raise ConfigurationError("\n".join(faults)) from None
    if faults:
        raise ConfigurationError("\n".join(faults))
    return settings


def _told(fault: ErrorDetails) -> str:
    message = "is missing" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
    if not fault["loc"] or message.partition(":")[0].lower() in Settings.model_fields:
        return message
    return f"{str(fault['loc'][0]).upper()}: {message}"


def misspelt_names(env_file: Path | None) -> Iterable[str]:
    """Find variables whose names nearly match one of ours: a typo must not become a default."""
    ours = [name.upper() for name in Settings.model_fields]
    given = set(os.environ)
    if env_file is not None and env_file.is_file():
        given |= set(dotenv_values(env_file))
    for name in sorted(given - set(ours) - FOREIGN_NAMES):
        if name.upper().startswith(PEOPLES_OWN):
            continue
        close = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=NEAR_MISS)
        if close and name.upper() != close[0]:
            yield f"{name}: is not a setting; did you mean {close[0]}?"
