"""The configuration: read once from the environment and `.env`, checked as a whole, then frozen."""

import difflib
import ipaddress
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import __version__
from app.errors import ConfigurationError
from app.quotas import parse_limits

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What people leave in place when they copy an example.
PLACEHOLDERS = {"changeme", "change-me", "change_me", "your-api-key", "your_api_key", "secret", "password"}
MINIMUM_KEY_LENGTH = 8
#: How alike a name must be to one of ours before it counts as misspelt.
NEAR_MISS = 0.85
#: Other programs' variables that resemble ours: OpenSSL's, and the usual ones of a database.
FOREIGN_NAMES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "DB_HOST", "DB_USERNAME", "DB_PASSWORD"}


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


class Settings(BaseSettings):
    """Every setting, named like its environment variable. The description is the documentation."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        case_sensitive=False,
    )

    tb_host: str = Field(
        description="Address of ThingsBoard: scheme, host and port, such as `https://tb.example.com`."
    )
    tb_username: str | None = Field(
        default=None, description="ThingsBoard login: a tenant administrator or a customer user."
    )
    tb_password: SecretStr | None = Field(default=None, description="Password of `TB_USERNAME`.")
    tb_api_key: SecretStr | None = Field(
        default=None, description="ThingsBoard API key (4.3 and later), in place of user name and password."
    )
    tb_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authority that signed ThingsBoard's certificate.",
    )
    tb_verify_tls: bool = Field(
        default=True, description="`false` accepts any certificate of ThingsBoard: only for a closed network."
    )
    tb_timeout_seconds: float = Field(
        default=35.0,
        gt=0,
        le=300,
        description="Longest wait for one answer of ThingsBoard, which itself gives up after 30 s.",
    )
    tb_max_connections: int = Field(
        default=64, ge=1, le=1000, description="Calls to ThingsBoard in flight at once, per worker."
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
    ssl_certfile: Path | None = Field(default=None, description="Certificate chain, to serve HTTPS.")
    ssl_keyfile: Path | None = Field(default=None, description="Private key of `SSL_CERTFILE`.")
    bulk_concurrency: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Devices of one bulk or many-device call that are served at once.",
    )
    stream_body_limit: int = Field(
        default=1 << 30, ge=1 << 20, description="Longest NDJSON or CSV upload in bytes, unpacked."
    )

    @field_validator("tb_host")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        parts = urlsplit(value if "://" in value else f"//{value}", scheme="http")
        if "://" not in value and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
            # A password must not travel in the clear because eight letters were left out.
            raise ValueError("must begin with https:// (or http:// in a closed network)")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must look like https://thingsboard.example.com")
        if parts.username or parts.password:
            raise ValueError("must not hold credentials: use TB_USERNAME and TB_PASSWORD")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("must end after the host and port")
        try:
            # The port is read on access; a host name has labels of 1 to 63 characters.
            _ = parts.port, parts.hostname.encode("idna")
        except ValueError:
            raise ValueError("must have a valid host name and port") from None
        return f"{parts.scheme}://{parts.netloc}"

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

    @field_validator("api_key", "tb_password", "tb_api_key")
    @classmethod
    def _is_no_placeholder(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().strip().lower() in PLACEHOLDERS:
            raise ValueError("is still a placeholder")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MINIMUM_KEY_LENGTH:
            raise ValueError(f"must have at least {MINIMUM_KEY_LENGTH} characters")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.tb_api_key is None and (self.tb_username is None or self.tb_password is None):
            raise ValueError("TB_USERNAME and TB_PASSWORD are needed (or TB_API_KEY)")
        if self.tb_api_key is not None and (self.tb_username or self.tb_password):
            raise ValueError("TB_API_KEY and TB_USERNAME/TB_PASSWORD exclude each other: set one of the two")
        if self.api_key is None and self.api_keys_file is None:
            raise ValueError("API_KEY or API_KEYS_FILE is needed: without a key nobody could call")
        if self.api_key is not None and self.api_keys_file is not None:
            raise ValueError("API_KEY and API_KEYS_FILE exclude each other: set one of the two")
        if self.workers > 1 and self.redis_url is None:
            raise ValueError("WORKERS above 1 needs REDIS_URL, or each worker would count limits for itself")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("SSL_CERTFILE and SSL_KEYFILE go together")
        return self

    @property
    def default_rate_limit(self) -> str:
        """The limit of a client address, as text."""
        return self.rate_limit or f"{self.rate_limit_requests}/{self.rate_limit_window} second"


def load(env_file: Path | None = Path(".env"), **overrides: Any) -> Settings:
    """Read the settings, or raise one ConfigurationError that names every fault."""
    faults = list(misspelt_names(env_file))
    try:
        settings = Settings(_env_file=env_file, **overrides)
    except ValidationError as error:
        for fault in error.errors():
            name = str(fault["loc"][0]).upper() + ": " if fault["loc"] else ""
            faults.append(name + _readable(fault["type"], fault["msg"]))
        raise ConfigurationError("\n".join(faults)) from None
    if faults:
        raise ConfigurationError("\n".join(faults))
    return settings


def _readable(kind: str, message: str) -> str:
    return "is missing" if kind == "missing" else message.removeprefix("Value error, ")


def misspelt_names(env_file: Path | None) -> Iterable[str]:
    """Find variables whose names nearly match one of ours: a typo must not become a default."""
    ours = [name.upper() for name in Settings.model_fields]
    given = set(os.environ)
    if env_file is not None and env_file.is_file():
        given |= set(dotenv_values(env_file))
    for name in sorted(given - set(ours) - FOREIGN_NAMES):
        close = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=NEAR_MISS)
        if close and name.upper() != close[0]:
            yield f"{name}: is not a setting; did you mean {close[0]}?"
