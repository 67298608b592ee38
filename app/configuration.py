"""All that is configured, read and checked as a whole before anything is served."""

import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from app import settings, tracing, upstream_file
from app.errors import ConfigurationError
from app.keys import store
from app.keys.commands import present, state_of
from app.keys.store import APIKeys
from app.settings import Settings
from app.upstream_settings import UpstreamSettings

Read = TypeVar("Read")


@dataclass(frozen=True)
class Configuration:
    """What would be served."""

    settings: Settings
    upstreams: dict[str, UpstreamSettings]
    keys: APIKeys


def load() -> Configuration:
    """Read the settings and every file that they name.

    Raises:
        ConfigurationError: a line for each fault.
    """
    loaded = settings.load()
    faults: list[str] = []

    def read(part: Callable[[], Read]) -> Read | None:
        try:
            return part()
        except ConfigurationError as error:
            faults.append(str(error))
            return None

    upstreams = read(lambda: upstream_file.load(loaded))
    keys = read(lambda: store.load(loaded, None if upstreams is None else frozenset(upstreams)))
    read(lambda: check_certificate(loaded))
    read(tracing.is_configured)
    if upstreams is None or keys is None or faults:
        raise ConfigurationError("\n".join(faults))
    return Configuration(loaded, upstreams, keys)


def check_certificate(loaded: Settings) -> None:
    """Load the certificate once, so that a wrong path or key is told like every other fault."""
    if loaded.ssl_certfile is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            loaded.ssl_certfile, loaded.ssl_keyfile
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"SSL_CERTFILE and SSL_KEYFILE: cannot be used ({reason})") from None


def address_of(loaded: Settings) -> str:
    """Return the address it listens on, as a URL."""
    host = f"[{loaded.host}]" if ":" in loaded.host else loaded.host
    return f"{'https' if loaded.ssl_certfile else 'http'}://{host}:{loaded.port}"


def summary_of(configuration: Configuration) -> Iterator[str]:
    """Yield lines for people that say what would be served; none holds a secret."""
    loaded = configuration.settings
    workers = "1 worker" if loaded.workers == 1 else f"{loaded.workers} workers"
    yield f"Address      {address_of(loaded)}, {workers}"
    for name, upstream in configuration.upstreams.items():
        yield f"ThingsBoard  {name}: {upstream.tb_host}, {_login_of(upstream)}"
    yield f"Keys         {_keys_of(configuration)}"
    counted = f"in Redis at {_redis_of(loaded)}" if loaded.redis_url else "in this process"
    yield f"Rate limit   {loaded.default_rate_limit} for a client address, counted {counted}"
    yield f"Host names   {', '.join(loaded.allowed_hosts)}"
    yield f"Web pages    {', '.join(loaded.backend_cors_origins) or 'none (BACKEND_CORS_ORIGINS)'}"
    proxies = ", ".join(map(str, loaded.trusted_proxies))
    yield f"Proxies      {proxies or 'none: X-Forwarded-For does not count (TRUSTED_PROXIES)'}"


def _login_of(upstream: UpstreamSettings) -> str:
    login = f"as {upstream.tb_username}" if upstream.tb_username else "with an API key"
    return login if upstream.tb_verify_tls else f"{login}, whatever its certificate (TB_VERIFY_TLS=false)"


def _keys_of(configuration: Configuration) -> str:
    if configuration.settings.api_keys_file is None:
        return "API_KEY, with all scopes"
    states = Counter(state_of(entry, present()) for entry in configuration.keys.entries)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{len(configuration.keys)} in {configuration.settings.api_keys_file}: {told}"


def _redis_of(loaded: Settings) -> str:
    """Return where Redis is; its URL may hold a password."""
    parts = urlsplit(loaded.redis_url.get_secret_value() if loaded.redis_url else "")
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
