"""Everything that can be set, from the environment: ``SMART_HOME_SECRET`` and so on."""

from typing import Annotated

from limits import parse
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from examples.smart_home.errors import ConfigurationError

SHORTEST_SECRET = 32
#: What people write in a URL, and the driver that is meant.
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


def _is_long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SHORTEST_SECRET:
        raise ValueError(f"must have at least {SHORTEST_SECRET} characters")
    return value


def _with_driver(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except ArgumentError:
        raise ValueError("must look like sqlite:///file.db or postgresql://user:password@host/name") from None
    driver = DRIVERS.get(url.drivername, url.drivername)
    if driver not in DRIVERS.values():
        raise ValueError("only SQLite and PostgreSQL are served")
    if driver == DRIVERS["sqlite"] and url.database in {None, "", ":memory:"}:
        raise ValueError("must name a file: an SQLite database in memory would be gone with its connection")
    return SecretStr(url.set(drivername=driver).render_as_string(hide_password=False))


def _is_limit(value: str) -> str:
    parse(value)
    return value


def _is_http(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/")


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="SMART_HOME_", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    secret: Annotated[SecretStr, AfterValidator(_is_long_enough)] = Field(
        description="Signs the users' tokens. Another one ends all sessions."
    )
    gateway_url: Annotated[str, AfterValidator(_is_http)] = Field(description="Address of the gateway.")
    gateway_key: SecretStr = Field(description="A key of the gateway, for devices of one type only.")
    database_url: Annotated[SecretStr, AfterValidator(_with_driver)] = Field(
        default=SecretStr("sqlite:///smart_home.db"),
        validate_default=True,
        description="`sqlite:///file.db` or `postgresql://user:password@host/name`.",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    trusted_proxies: str = Field(
        default="", description="Addresses of reverse proxies, with commas, whose `X-Forwarded-*` count."
    )
    login_limit: Annotated[str, AfterValidator(_is_limit)] = Field(
        default="10/minute", description="Log-ins and sign-ups of one client address."
    )
    access_minutes: int = Field(default=15, ge=1, le=1440)
    refresh_days: int = Field(default=30, ge=1, le=365)


def load() -> Settings:
    """Return the settings of the environment; all faults are told together.

    Raises:
        ConfigurationError: with one line a fault, each naming its variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            f"SMART_HOME_{'_'.join(map(str, fault['loc'])).upper()}: "
            f"{'is missing' if fault['type'] == 'missing' else fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("\n".join(faults)) from None
