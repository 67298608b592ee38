"""Say what works and what does not between this machine, ThingsBoard and the gateway.

It stands alone: httpx, python-dotenv and websockets when installed, nothing of the gateway.
``--help`` lists the options.
"""

from __future__ import annotations

import argparse
import base64
import email.utils
import http.client
import ipaddress
import json
import math
import os
import re
import secrets
import signal
import socket
import ssl
import sys
import time
import tomllib
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, quote, unquote, urlsplit

try:
    import httpx
except ImportError:
    httpx = None  # type: ignore[assignment]  # Reported as a finding of the configuration check.

DEFAULT_TIMEOUT_SECONDS = 10.0
LONGEST_TIMEOUT_SECONDS = 300.0
LARGEST_BODY = 1024 * 1024
OLDEST_VERSION = (3, 6)
FIRST_VERSION_WITH_API_KEYS = (4, 3)
CERTIFICATE_WARNING_DAYS = 14
SKEW_WARNING_SECONDS = 5
SKEW_FAILURE_SECONDS = 60
SHORT_TOKEN_SECONDS = 300
DAY_SECONDS = 86_400
MOST_PAGES = 1000
#: ThingsBoard waits so long for a device at least.
RPC_SECONDS = 5
#: How long a WebSocket is given to say goodbye.
CLOSE_SECONDS = 2.0
#: The number of our subscription: ThingsBoard reports faults of whole frames under 0 and 1.
SUBSCRIPTION = 2
#: What ThingsBoard closes a WebSocket with: the token was refused; a limit of the tenant profile.
BAD_TOKEN, POLICY = 1007, 1008
#: What version 1 of ThingsBoard's RPC routes says.
RPC_OUTCOMES = {200: "answered", 408: "timeout", 409: "offline"}
PREFIX = "tb_connection_check_"
GATEWAY = "the gateway"
TENANT_ADMIN, CUSTOMER_USER = "TENANT_ADMIN", "CUSTOMER_USER"
PLACEHOLDER = re.compile(
    r"(change|replace)[-_ ]?me.*|your[-_ ].*|<.*>|x{3,}|\*{3,}|todo|placeholder", re.IGNORECASE
)
#: What an upstream's table says about the way to it; the secrets may be in a file or a variable.
UPSTREAM_FIELDS = ("tb_host", "tb_username", "tb_password", "tb_api_key", "tb_ca_file", "tb_verify_tls")
UPSTREAM_SECRETS = {"tb_password", "tb_api_key"}
ERROR_FIELDS = {"status", "message", "error_code", "timestamp", "details", "request_id"}
RATE_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
SECURITY_HEADERS = (
    ("X-Content-Type-Options",),
    ("X-Frame-Options", "Content-Security-Policy"),
    ("Referrer-Policy",),
)


class Status(StrEnum):
    """The verdict of one check."""

    PASS = "pass"  # noqa: S105  # A verdict, not a password.
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


EMOJI = {Status.PASS: "✅", Status.WARN: "⚠️ ", Status.FAIL: "❌", Status.SKIP: "⏭️ "}
PLAIN = {Status.PASS: "[ OK ]", Status.WARN: "[WARN]", Status.FAIL: "[FAIL]", Status.SKIP: "[SKIP]"}


class Problem(Exception):
    """End a check with a verdict, by default a failure; what to do about it goes into ``hint``."""

    def __init__(self, message: str, hint: str = "", status: Status = Status.FAIL) -> None:
        super().__init__(message)
        self.message, self.hint, self.status = message, hint, status


@dataclass(frozen=True)
class Check:
    """One line of the report: ``action`` returns its good news or raises Problem."""

    name: str
    title: str
    action: Callable[[Run], str]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What one check found."""

    name: str
    status: Status
    message: str
    hint: str
    elapsed_ms: int


class Report:
    """Runs checks, prints each as it ends (with ``as_json`` all at the end) and knows the exit code."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.results: dict[str, Result] = {}
        self.is_interrupted = False
        self.started = time.monotonic()
        self.symbols = EMOJI if _can_print("".join(EMOJI.values()) + "💡🎉") else PLAIN

    def perform(self, check: Check, run: Run) -> None:
        """Run the check, or skip it when a check that it requires has not passed."""
        started = time.monotonic()
        status, message, hint = self._verdict(check, run)
        result = Result(check.name, status, message, hint, round((time.monotonic() - started) * 1000))
        self.results[check.name] = result
        if not self.as_json:
            _print(f"{self.symbols[status]} {check.title}: {message} ({result.elapsed_ms} ms)")
            if hint:
                _print(f"   {self._symbol('💡', 'hint:')} {hint}")

    def _verdict(self, check: Check, run: Run) -> tuple[Status, str, str]:
        for needed in check.requires:
            if needed not in self.results or self.results[needed].status in {Status.FAIL, Status.SKIP}:
                return Status.SKIP, f"needs '{needed}', which did not pass", ""
        try:
            return Status.PASS, check.action(run), ""
        except Problem as problem:
            return problem.status, problem.message, problem.hint
        except Exception as exc:  # noqa: BLE001  # A traceback could show a password, and clean-up must follow.
            hint = "Does a proxy change the answers? If not, please report this."
            return Status.FAIL, f"unexpected data ended the check ({type(exc).__name__})", hint

    def _symbol(self, emoji: str, plain: str) -> str:
        return emoji if self.symbols is EMOJI else plain

    def count(self, status: Status) -> int:
        """Return how many checks ended with this verdict."""
        return sum(result.status is status for result in self.results.values())

    @property
    def exit_code(self) -> int:
        """Return 0, 1 (a check failed), 2 (usage or configuration) or 130 (interrupted)."""
        if self.is_interrupted:
            return 130
        first = self.results.get("configuration")
        if first is None or first.status is Status.FAIL:
            return 2
        return 1 if self.count(Status.FAIL) else 0

    def finish(self) -> None:
        """Print the summary, or the whole JSON object."""
        passed, warned, failed, skipped = (self.count(status) for status in Status)
        elapsed_ms = round((time.monotonic() - self.started) * 1000)
        if self.as_json:
            summary = {"passed": passed, "warnings": warned, "failed": failed, "skipped": skipped}
            summary |= {
                "interrupted": self.is_interrupted,
                "elapsed_ms": elapsed_ms,
                "exit_code": self.exit_code,
            }
            checks = [vars(result) for result in self.results.values()]
            _print(json.dumps({"ok": self.exit_code == 0, "summary": summary, "checks": checks}))
            return
        _print(f"\n{passed} passed, {warned} warnings, {failed} failed, {skipped} skipped ({elapsed_ms} ms)")
        if self.is_interrupted:
            _print(f"{self._symbol('🛑', '[STOP]')} Interrupted.")
        elif failed:
            _print(f"{self.symbols[Status.FAIL]} Some checks failed: start with the first one.")
        elif skipped:
            _print(f"{self.symbols[Status.SKIP]} Nothing failed, but not everything was checked.")
        else:
            _print(f"{self._symbol('🎉 ', '')}ALL TESTS PASSED!")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


@dataclass(frozen=True)
class Settings:
    """The configuration, parsed."""

    url: SplitResult
    username: str
    password: str
    api_key: str
    ca_file: str
    verify_tls: bool
    proxy: SplitResult | None
    gateway: SplitResult | None
    gateway_proxy: SplitResult | None
    gateway_key: str

    @property
    def peer(self) -> tuple[str, int]:
        """Return host and port of the first connection: the proxy's when there is one."""
        return _address(self.proxy or self.url)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what may never be printed."""
        proxy = unquote((self.proxy and self.proxy.password) or "")
        return tuple(filter(None, (self.password, self.api_key, self.gateway_key, proxy)))

    def tls_context(self, *, verify: bool) -> ssl.SSLContext:
        """Return a context that trusts TB_CA_FILE, or the system's authorities when there is none."""
        # As in the gateway: an authority that is not in TB_CA_FILE is not trusted beside it.
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _address(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_environment(env_file: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables by upper-case name, the process's before the file's, and notes about the file."""
    values: dict[str, str] = {}
    notes = []
    if env_file.is_file():
        try:
            from dotenv import dotenv_values  # noqa: PLC0415  # Optional: only a file needs it.

            values = {name.upper(): value or "" for name, value in dotenv_values(env_file).items()}
        except ImportError:
            notes.append("the env file was not read, python-dotenv is missing: pip install python-dotenv")
        except (OSError, UnicodeDecodeError) as exc:
            raise Problem(
                "the env file cannot be read", "Check its permissions; it must be UTF-8 text."
            ) from exc
    values |= {name.upper(): value for name, value in os.environ.items() if value.strip()}
    return {name: value.strip() for name, value in values.items()}, notes


def choose_upstream(env: dict[str, str], wanted: str | None) -> dict[str, str]:
    """Return the variables as they would be if the chosen upstream of UPSTREAMS_FILE were that of TB_HOST."""
    if env.get("TB_HOST") and wanted in {None, "default"}:
        return env
    if not env.get("UPSTREAMS_FILE"):
        if wanted is None:
            return env
        raise Problem("UPSTREAMS_FILE is not set", "--upstream chooses from that file.")
    tables = _upstreams(Path(env["UPSTREAMS_FILE"]))
    names = ", ".join(sorted(tables))
    if wanted is None:
        raise Problem("TB_HOST is not set", f"Choose one of UPSTREAMS_FILE with --upstream: {names}.")
    if wanted not in tables:
        raise Problem("UPSTREAMS_FILE has no such upstream", f"It has {names}.")
    table = tables[wanted]
    chosen = {name: value for name, value in env.items() if not name.startswith("TB_")}
    for name in UPSTREAM_FIELDS:
        value = _upstream_value(env, table, name)
        if value is not None:
            chosen[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value).strip()
    return chosen


def _upstreams(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = tomllib.loads(path.read_text("utf-8")).get("upstreams")
    except OSError as exc:
        raise Problem("UPSTREAMS_FILE cannot be read", "Check the path and its permissions.") from exc
    except ValueError as exc:
        raise Problem("UPSTREAMS_FILE is not valid TOML", "The gateway says at which line.") from exc
    tables = found if isinstance(found, list) else []
    return {str(table.get("name")): table for table in tables if isinstance(table, dict)}


def _upstream_value(env: Mapping[str, str], table: Mapping[str, Any], name: str) -> Any:
    """Return a field of an upstream, which may only point at its secret."""
    if name not in UPSTREAM_SECRETS:
        return table.get(name)
    if f"{name}_env" in table:
        return env.get(str(table[f"{name}_env"]).upper())
    if f"{name}_file" in table:
        try:
            return Path(str(table[f"{name}_file"])).read_text("utf-8")
        except (OSError, ValueError) as exc:
            raise Problem(f"{name}_file cannot be read", "Check the path and its permissions.") from exc
    return table.get(name)


def parse_origin(name: str, value: str, notes: list[str]) -> SplitResult:
    """Return the URL, which may hold nothing but scheme, host and port."""
    if "://" not in value:
        # The gateway reads it so, too; whatever else is tried here would not be what it does.
        value = f"http://{value}"
        notes.append(f"{name} has no scheme, http:// is assumed: write out http:// or https://")
    try:
        url = urlsplit(value)
        port_is_valid = url.port != 0
    except ValueError:
        port_is_valid, url = False, urlsplit("")
    if not port_is_valid or not url.hostname or url.scheme not in {"http", "https"}:
        raise Problem(f"{name} is no URL of the form https://host:port", f"Correct {name}.")
    if url.username is not None or url.password is not None:
        raise Problem(
            f"{name} holds credentials", f"Keep {name} to scheme, host and port; TB_USERNAME logs in."
        )
    if url.path.strip("/") or url.query or url.fragment:
        raise Problem(f"{name} holds a path or a query", f"Remove everything after the port from {name}.")
    if PLACEHOLDER.fullmatch(url.hostname):
        raise Problem(f"{name} is still a placeholder", f"Put the real address into {name}.")
    return url


def parse_proxy(env: Mapping[str, str], url: SplitResult) -> SplitResult | None:
    """Return the proxy that HTTPS_PROXY or HTTP_PROXY names for this URL, unless NO_PROXY excludes it."""
    name = f"{url.scheme.upper()}_PROXY"
    value = env.get(name, "")
    excluded = {"no": env.get("NO_PROXY", "")}
    # The public proxy_bypass() reads the process environment only, and NO_PROXY may come from the file.
    bypass: Callable[[str, Mapping[str, str]], bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not value or _is_loopback(url.hostname or "") or bypass(url.netloc, excluded):
        return None
    proxy = urlsplit(value if "://" in value else f"http://{value}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise Problem(
            f"{name} is no URL of the form http://host:port",
            f"Correct {name}, or exclude the host in NO_PROXY.",
        )
    return proxy


def parse_settings(env: Mapping[str, str], options: argparse.Namespace, notes: list[str]) -> Settings:
    """Return the settings, or raise Problem with all that is missing or a placeholder."""
    if not env.get("TB_HOST"):
        raise Problem(
            "TB_HOST is not set", "Set TB_HOST=https://your-thingsboard, in the environment or in .env."
        )
    url = parse_origin("TB_HOST", env["TB_HOST"], notes)
    gateway = parse_origin("--gateway", options.gateway, notes) if options.gateway else None
    key = options.key or env.get("GATEWAY_API_KEY") or env.get("API_KEY", "")
    settings = Settings(
        url=url,
        username=env.get("TB_USERNAME", ""),
        password=env.get("TB_PASSWORD", ""),
        api_key=env.get("TB_API_KEY", ""),
        ca_file=env.get("TB_CA_FILE", ""),
        verify_tls=parse_switch("TB_VERIFY_TLS", env.get("TB_VERIFY_TLS", "true")),
        proxy=parse_proxy(env, url),
        gateway=gateway,
        gateway_proxy=parse_proxy(env, gateway) if gateway else None,
        gateway_key=key if gateway else "",
    )
    _check_credentials(settings)
    notes += _doubts(settings)
    _check_ca_file(settings)
    return settings


def parse_switch(name: str, value: str) -> bool:
    """Return the truth value of a switch."""
    if value.lower() in {"true", "1", "yes", "on", "t", "y"}:
        return True
    if value.lower() in {"false", "0", "no", "off", "f", "n"}:
        return False
    raise Problem(f"{name} is neither true nor false", f"Write {name}=true.")


def _check_credentials(settings: Settings) -> None:
    given = {
        "TB_USERNAME": settings.username,
        "TB_PASSWORD": settings.password,
        "TB_API_KEY": settings.api_key,
        "the gateway key": settings.gateway_key,
    }
    if not settings.api_key:
        missing = [name for name in ("TB_USERNAME", "TB_PASSWORD") if not given[name]]
        if missing:
            hint = "Set TB_USERNAME and TB_PASSWORD, or TB_API_KEY (ThingsBoard 4.3 and later)."
            raise Problem(f"{' and '.join(missing)} not set", hint)
    elif bool(settings.username) != bool(settings.password):
        raise Problem(
            "TB_USERNAME and TB_PASSWORD go together", "Set both or neither; TB_API_KEY alone is enough."
        )
    if placeholders := [name for name, value in given.items() if PLACEHOLDER.fullmatch(value)]:
        raise Problem(f"still a placeholder: {', '.join(placeholders)}", "Put the real values into .env.")
    for name in ("TB_API_KEY", "the gateway key"):
        if not given[name].isascii() or re.search(r"\s", given[name]):
            raise Problem(
                f"{name} holds blanks or special characters", "Copy it again, without quotes or line breaks."
            )


def _doubts(settings: Settings) -> Iterator[str]:
    if settings.api_key and settings.username:
        yield "TB_API_KEY and TB_USERNAME are both set: the API key is checked"
    if settings.ca_file and settings.url.scheme == "http":
        yield "TB_CA_FILE has no effect on an http:// address"
    elif settings.ca_file and not settings.verify_tls:
        yield "TB_VERIFY_TLS=false makes TB_CA_FILE useless: remove TB_VERIFY_TLS"


def _check_ca_file(settings: Settings) -> None:
    try:
        settings.tls_context(verify=True)
    except (OSError, ValueError) as exc:
        hint = "It must be a readable PEM file that starts with -----BEGIN CERTIFICATE-----."
        raise Problem("TB_CA_FILE cannot be used", hint) from exc


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, its body read and cut at 1 MiB; ``json`` is None when the body is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any
    local_time: float
    round_trip: float

    @property
    def is_html(self) -> bool:
        """Tell whether this is a page for people."""
        return "text/html" in self.headers.get("content-type", "") or self.body.lstrip()[:1] == b"<"

    def get(self, name: str) -> Any:
        """Return a field of the JSON object, or None."""
        return self.json.get(name) if isinstance(self.json, dict) else None

    def reason(self, hidden: tuple[str, ...]) -> str:
        """Return ", <a few words of the server>", or nothing when there are none that may be shown."""
        text = self.get("message") if self.json is not None else self.body.decode("ascii", "replace")
        if not isinstance(text, str) or self.is_html or any(secret in text for secret in hidden):
            return ""
        # Whatever is as long as a token may be one.
        text = re.sub(r"\S{25,}", "...", re.sub(r"[^!-~]+", " ", text))
        return f', "{text[:80].strip()}"' if text.strip() else ""


class Peer:
    """One HTTP server; whatever goes wrong on the way to it becomes a Problem."""

    def __init__(self, who: str, url: SplitResult, client: httpx.Client, timeout: float) -> None:
        self.who, self.url, self.client, self.timeout = who, url, client, timeout
        self.hidden: tuple[str, ...] = ()
        self.headers: dict[str, str] = {}

    def call(self, method: str, path: str, **content: Any) -> Answer:
        """Send one request and return whatever is answered; ``patience`` seconds more than usual may pass."""
        timeout = self.timeout + content.pop("patience", 0.0)
        headers = self.headers | content.pop("headers", {})
        sent, started = time.time(), time.monotonic()
        body = b""
        try:
            with self.client.stream(method, path, headers=headers, timeout=timeout, **content) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    # httpx limits the wait for each piece, not for the whole.
                    if time.monotonic() - started > timeout:
                        raise Problem(*self._too_slow())
                    if len(body) > LARGEST_BODY:
                        break
        except httpx.TimeoutException as exc:
            raise Problem(*self._too_slow()) from exc
        except httpx.HTTPError as exc:
            raise Problem(*self._broken(exc)) from exc
        took = time.monotonic() - started
        parsed = None
        with suppress(ValueError, RecursionError):
            parsed = json.loads(body)
        return Answer(response.status_code, response.headers, body, parsed, sent + took / 2, took)

    def expect(self, method: str, path: str, *, status: int = HTTPStatus.OK, **content: Any) -> Answer:
        """Send one request; any other status than ``status`` is a Problem with a hint."""
        answer = self.call(method, path, **content)
        if answer.status != status:
            hints = GATEWAY_HINTS if self.who == GATEWAY else THINGSBOARD_HINTS
            message = f"{self.who} answered {answer.status}{answer.reason(self.hidden)}"
            raise Problem(
                message, hints.get(answer.status, "See the server's log for the time of this check.")
            )
        return answer

    def listen(self, path: str, **content: Any) -> Generator[str]:
        """Yield an empty line once an event stream has begun, then its lines, until it ends or is silent."""
        headers = {"Accept": "text/event-stream"} | content.pop("headers", {})
        has_begun = False
        try:
            with self.client.stream("GET", path, headers=headers, **content) as response:
                if response.status_code != HTTPStatus.OK:
                    hint = GATEWAY_HINTS.get(response.status_code, "See its log for the time of this check.")
                    raise Problem(f"{self.who} answered {response.status_code}", hint)
                if "text/event-stream" not in response.headers.get("content-type", ""):
                    raise Problem("what was answered is no event stream", "A proxy answers in its place.")
                has_begun = True
                yield ""
                yield from response.iter_lines()
        except httpx.TimeoutException as exc:
            if not has_begun:
                raise Problem(f"the stream did not begin within {self.timeout:g} s", BUFFER_HINT) from exc
        except httpx.HTTPError as exc:
            if not has_begun:
                raise Problem(*self._broken(exc)) from exc

    def wants_tls(self) -> bool:
        """Tell whether an http:// address names a TLS port."""
        return self.url.scheme == "http" and _speaks_tls(_address(self.url), self.timeout)

    def _too_slow(self) -> tuple[str, str]:
        hint = "It is overloaded, starting, or a firewall drops the answers. --timeout 60 waits longer."
        return f"no full answer of {self.who} within {self.timeout:g} s", hint

    def _broken(self, exc: httpx.HTTPError) -> tuple[str, str]:
        if isinstance(exc, httpx.ProxyError):
            return f"the proxy refused the way to {self.who}", PROXY_HINT
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                return f"the TLS certificate or protocol of {self.who} was refused", TLS_HINT
            cause = cause.__cause__ or cause.__context__
        if isinstance(exc, httpx.ConnectError):
            hint = "Is it running, are host and port right? In a container localhost is the container itself."
            return f"connection to {self.who} refused", hint
        if self.wants_tls():
            return f"{self.who} speaks TLS on this port", USE_HTTPS
        return f"{self.who} closed the connection without a valid HTTP answer", "Is this the HTTP port?"


PROXY_HINT = "Check HTTPS_PROXY, its credentials, and NO_PROXY."
UPGRADE_HINT = (
    "A proxy in front of ThingsBoard must pass WebSockets on /api/ws: HTTP/1.1 with the headers Upgrade and "
    "Connection."
)
BUFFER_HINT = (
    "A proxy that buffers keeps events back: turn buffering off for text/event-stream. If there is none: see "
    "the check 'live' and the gateway's log."
)
USE_HTTPS = "Write https:// in place of http://."
TLS_HINT = "Name a private authority's certificate (PEM) in TB_CA_FILE; the host must be in the certificate."
THINGSBOARD_HINTS = {
    301: "Something redirects: give the final address in TB_HOST.",
    302: "Something redirects: give the final address in TB_HOST.",
    400: "This ThingsBoard does not understand the request: a proxy may have changed it.",
    401: "The token was refused: all ThingsBoard nodes need the same signing key and clock.",
    403: "The account lacks the permission; in PE see the roles of its group.",
    404: "It does not exist, or ThingsBoard is older than 3.6.",
    413: "A reverse proxy limits the size of bodies.",
    429: "ThingsBoard's rate limit of this tenant: wait a minute, or raise it in the tenant profile.",
    500: "ThingsBoard failed: see its log, and whether its database is well.",
    502: "A reverse proxy answers, ThingsBoard behind it does not: it needs a minute or two to start.",
    503: "A reverse proxy answers, ThingsBoard behind it does not: it needs a minute or two to start.",
    504: "ThingsBoard is too slow for the reverse proxy in front of it.",
}
GATEWAY_HINTS = {
    401: "The gateway does not know this key, or it has expired: check GATEWAY_API_KEY or --key.",
    403: "The key lacks a scope: this check needs devices:read, telemetry:read and telemetry:write.",
    404: "The key may not see the device, or the gateway serves another ThingsBoard, or is too old.",
    413: "The body is larger than the gateway or a proxy in front of it allows.",
    429: "Too many requests or failed keys from this address: wait a minute, or raise RATE_LIMIT_REQUESTS.",
    500: "A fault of the gateway: see its log for the time of this check.",
    502: "The gateway got no usable answer from ThingsBoard: see its log about its login there.",
    503: "The gateway cannot reach ThingsBoard, or is starting or overloaded: check TB_HOST where it runs.",
    504: "ThingsBoard is too slow for the gateway: see its load.",
}


@dataclass
class Run:
    """What the checks learn and hand on; whoever makes one closes it."""

    options: argparse.Namespace
    _settings: Settings | None = None
    _peers: dict[str, Peer] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    login: Answer | None = None
    authority: str = ""
    customer_id: str = ""
    device_id: str = ""
    new_device: str = ""
    has_written: bool = False
    last_ts: int = 0

    @property
    def settings(self) -> Settings:
        """Return the settings; only the configuration check runs before they are known."""
        if self._settings is None:
            raise Problem("the configuration is not known")
        return self._settings

    def connect(self, settings: Settings) -> None:
        """Keep the settings and make the HTTP clients, which connect on first use."""
        self._settings = settings
        self._add_peer("ThingsBoard", settings.url, settings.proxy, verify=settings.verify_tls)
        if settings.gateway:
            # TB_VERIFY_TLS speaks of ThingsBoard: the gateway's key never goes to an unverified server.
            self._add_peer(GATEWAY, settings.gateway, settings.gateway_proxy, verify=True)

    def _add_peer(self, who: str, url: SplitResult, proxy: SplitResult | None, *, verify: bool) -> None:
        context = self.settings.tls_context(verify=verify)
        if who == GATEWAY:
            context.load_default_certs()
        client = httpx.Client(
            base_url=f"{url.scheme}://{url.netloc}",
            verify=context,
            proxy=proxy.geturl() if proxy else None,
            timeout=self.options.timeout,
            trust_env=False,
            headers={"User-Agent": "tb-connection-check", "Accept": "application/json"},
        )
        self._peers[who] = Peer(who, url, client, self.options.timeout)
        self._peers[who].hidden = self.settings.secrets

    @property
    def thingsboard(self) -> Peer:
        """Return ThingsBoard, credentials attached once the login has passed."""
        return self._peers["ThingsBoard"]

    @property
    def gateway(self) -> Peer:
        """Return the gateway, without a key."""
        return self._peers[GATEWAY]

    @property
    def telemetry_path(self) -> str:
        """Return where ThingsBoard keeps the data of the check device."""
        return f"/api/plugins/telemetry/DEVICE/{self.device_id}"

    @property
    def device_list_path(self) -> str:
        """Return the list of what this account may see."""
        owner = f"customer/{self.customer_id}" if self.authority == CUSTOMER_USER else "tenant"
        return f"/api/{owner}/deviceInfos"

    @property
    def version(self) -> tuple[int, int] | None:
        """Return major and minor version, or None while they are unknown."""
        found = re.match(r"(\d{1,4})\.(\d{1,4})", str(self.system.get("version")))
        return (int(found[1]), int(found[2])) if found else None

    def use_tokens(self, answer: Answer) -> None:
        """Send the token of a login or refresh from now on, and never print it."""
        self.tokens = {name: str(answer.get(name) or "") for name in ("token", "refreshToken")}
        self.thingsboard.headers = {"X-Authorization": f"Bearer {self.tokens['token']}"}
        self.thingsboard.hidden += tuple(filter(None, self.tokens.values()))

    def key(self, name: str) -> str:
        """Return the key to write: on somebody's device it must not meet one of theirs."""
        return f"{PREFIX}{name}" if self.options.device else name

    def next_ts(self) -> int:
        """Return now in milliseconds, later than any time returned before."""
        self.last_ts = max(self.last_ts + 1, time.time_ns() // 1_000_000)
        return self.last_ts

    def close(self) -> None:
        """Close the HTTP clients."""
        for peer in self._peers.values():
            peer.client.close()


def check_configuration(run: Run) -> str:
    """Read and parse the environment and the env file."""
    if httpx is None:
        raise Problem("httpx is not installed", "Run: python -m pip install httpx python-dotenv")
    env, notes = read_environment(Path(run.options.env_file))
    settings = parse_settings(choose_upstream(env, run.options.upstream), run.options, notes)
    run.connect(settings)
    host, port = _address(settings.url)
    way = f" through the proxy {settings.peer[0]}:{settings.peer[1]}" if settings.proxy else ""
    message = f"{settings.url.scheme}://{host}:{port}{way}, {'API key' if settings.api_key else 'password'}"
    if notes:
        raise Problem(message, "; ".join(notes) + ".", Status.WARN)
    return message


def check_name_resolution(run: Run) -> str:
    """Resolve the host, or the proxy's when there is one."""
    host, port = run.settings.peer
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        hint = "Check the spelling in TB_HOST (or HTTPS_PROXY) and the DNS; in Docker use the service's name."
        raise Problem(f"{host} is not known", hint) from exc
    return ", ".join(sorted({str(entry[4][0]) for entry in found}))


def check_tcp(run: Run) -> str:
    """Open a connection."""
    host, port = run.settings.peer
    try:
        socket.create_connection((host, port), run.options.timeout).close()
    except ConnectionRefusedError as exc:
        hint = "Is it running, and is the port right? In a container localhost is the container itself."
        raise Problem(f"{host}:{port} refuses connections", hint) from exc
    except OSError as exc:
        hint = "A firewall, a VPN or the route: try from the machine that ThingsBoard runs on."
        raise Problem(f"{host}:{port} cannot be reached", hint) from exc
    return f"{host}:{port} is open"


CERTIFICATE_FAULTS = {
    9: ("the certificate is not valid yet", "Check the clock of this machine and the certificate."),
    10: (
        "the certificate has expired",
        "Renew ThingsBoard's certificate, and check the clock of this machine.",
    ),
    18: ("the certificate is self-signed", "Name the certificate (PEM) in TB_CA_FILE."),
    19: ("the certificate comes from a private authority", "Name its certificate (PEM) in TB_CA_FILE."),
    20: (
        "the certificate's authority is not known here",
        "Name a private authority's certificate (PEM) in TB_CA_FILE; or an intermediate one is missing.",
    ),
    62: ("the certificate is for another host name", "Use the name that is in the certificate in TB_HOST."),
    64: (
        "the certificate is not for this address",
        "Use the name that is in the certificate in TB_HOST, not the IP.",
    ),
}
CERTIFICATE_FAULTS[21] = CERTIFICATE_FAULTS[20]


def check_tls(run: Run) -> str:
    """Verify the certificate and its date."""
    settings, (host, port) = run.settings, _address(run.settings.url)
    if settings.url.scheme == "http":
        if _is_loopback(host):
            return "not used: plain HTTP on this machine"
        raise Problem(
            "not used: the password travels in the clear", "Use https:// outside tests.", Status.WARN
        )
    try:
        version, expires = _handshake(settings, run.options.timeout, verify=True)
    except ssl.SSLCertVerificationError as exc:
        message, hint = CERTIFICATE_FAULTS.get(exc.verify_code, ("the certificate was refused", TLS_HINT))
        if settings.verify_tls:
            raise Problem(message, hint) from exc
        raise Problem(f"{message} (ignored: TB_VERIFY_TLS=false)", hint, Status.WARN) from exc
    except (OSError, http.client.HTTPException) as exc:
        if not settings.proxy and _speaks_http((host, port), run.options.timeout):
            hint = "Write http:// in place of https://, or use the TLS port."
            raise Problem(f"{host}:{port} speaks plain HTTP", hint) from exc
        if settings.proxy:
            raise Problem("the proxy opens no way to ThingsBoard", PROXY_HINT) from exc
        hint = "Is this the HTTPS port? Old TLS versions and client certificates are not supported."
        raise Problem("no TLS handshake", hint) from exc
    days = math.floor((expires - time.time()) / DAY_SECONDS)
    message = (
        f"{version}, certificate valid until {time.strftime('%Y-%m-%d', time.gmtime(expires))} ({days} days)"
    )
    if days < CERTIFICATE_WARNING_DAYS:
        raise Problem(message, "Renew ThingsBoard's certificate soon.", Status.WARN)
    if not settings.verify_tls:
        raise Problem(message, "The certificate is good: remove TB_VERIFY_TLS=false.", Status.WARN)
    return message


def _handshake(settings: Settings, timeout: float, *, verify: bool) -> tuple[str, float]:
    plain = _open_way(settings, timeout)
    with closing(plain):
        context = settings.tls_context(verify=verify)
        with context.wrap_socket(plain, server_hostname=_address(settings.url)[0]) as tls:
            expires = (tls.getpeercert() or {}).get("notAfter")
            return tls.version() or "TLS", ssl.cert_time_to_seconds(str(expires)) if expires else math.inf


def _open_way(settings: Settings, timeout: float) -> socket.socket:
    """Return a connection to ThingsBoard, through the proxy when there is one."""
    connection = http.client.HTTPConnection(*settings.peer, timeout=timeout)
    if proxy := settings.proxy:
        login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
        headers = {"Proxy-Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
        connection.set_tunnel(*_address(settings.url), headers if proxy.username else {})
    connection.connect()
    return connection.sock


def _speaks_tls(address: tuple[str, int], timeout: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Only asks which protocol is spoken; nothing is sent.
    try:
        with socket.create_connection(address, timeout) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _speaks_http(address: tuple[str, int], timeout: float) -> bool:
    try:
        with socket.create_connection(address, timeout) as plain:
            plain.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return plain.recv(5) == b"HTTP/"
    except OSError:
        return False


def check_thingsboard(run: Run) -> str:
    """Ask for the version, as a stranger, and recognise what is not ThingsBoard."""
    peer = run.thingsboard
    answer = peer.call("GET", "/api/system/info")
    if answer.status == HTTPStatus.BAD_REQUEST and peer.wants_tls():
        raise Problem("ThingsBoard speaks TLS on this port", USE_HTTPS)
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        secure = answer.headers.get("location", "").startswith("https://") and peer.url.scheme == "http"
        hint = (
            "Write https:// in TB_HOST."
            if secure
            else "Give the final address in TB_HOST, not a login portal's."
        )
        raise Problem(f"redirected ({answer.status}): this is not ThingsBoard's API", hint)
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Problem(
            f"ThingsBoard answered {answer.status}", THINGSBOARD_HINTS.get(answer.status, "See its log.")
        )
    if answer.is_html:
        hint = "TB_HOST points at another web server, or at a page that a proxy puts in front of ThingsBoard."
        raise Problem(f"a web page answered ({answer.status}), not ThingsBoard's API", hint)
    if answer.status == HTTPStatus.OK and isinstance(answer.get("version"), str):
        run.system = answer.json
        return f"{_product(run)} answers"
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND} and (
        not answer.body or answer.get("errorCode")
    ):
        return f"ThingsBoard answers ({answer.status}), its version is asked after the login"
    raise Problem(
        f"something answered {answer.status}, but not as ThingsBoard does", "Check host and port in TB_HOST."
    )


def _product(run: Run) -> str:
    edition = {"CE": " CE", "PE": " PE"}.get(str(run.system.get("type")).upper(), "")
    found = re.match(r"\d[\w.\-]{0,20}", str(run.system.get("version")))
    return f"ThingsBoard{edition} {found[0] if found else 'of unknown version'}"


def check_version(run: Run) -> str:
    """Compare the version with the oldest that the gateway serves."""
    if not run.system and run.authority:
        answer = run.thingsboard.call("GET", "/api/system/info")
        run.system = answer.json if answer.status == HTTPStatus.OK and isinstance(answer.json, dict) else {}
    if run.version is None:
        hint = "The gateway needs ThingsBoard 3.6 or later: look at the foot of its web page."
        raise Problem("version unknown", hint, Status.WARN)
    if run.version < OLDEST_VERSION:
        raise Problem(
            f"{_product(run)} is too old", "The gateway needs ThingsBoard 3.6 or later: upgrade it."
        )
    return _product(run)


LOGIN_REFUSALS = (
    (
        "not active",
        "the account is disabled",
        "Activate the user in ThingsBoard (or its tenant's administrator does).",
    ),
    (
        "locked",
        "the account is locked",
        "Too many wrong passwords: unlock the user in ThingsBoard, then correct it.",
    ),
    ("expired", "the password has expired", "Log in to ThingsBoard's web page and set a new password."),
    (
        "invalid username or password",
        "wrong user name or password",
        "It does not say which: try both on its web page; quote special characters in .env.",
    ),
)
TWO_FACTORS = {
    "PRE_VERIFICATION_TOKEN": (
        "the account asks for a second factor (2FA)",
        "The gateway cannot type a code: use an account without 2FA, or TB_API_KEY (4.3 and later).",
    ),
    "MFA_CONFIGURATION_TOKEN": (
        "the account must set up a second factor (2FA) first",
        "2FA is enforced for it: exempt it in ThingsBoard, or use TB_API_KEY (ThingsBoard 4.3 and later).",
    ),
}


def check_login(run: Run) -> str:
    """Log in, or try the API key, and find out as what."""
    if run.settings.api_key:
        _try_api_key(run)
    else:
        _log_in(run)
    user = run.thingsboard.expect("GET", "/api/auth/user")
    run.login = run.login or user
    authority = str(user.get("authority"))
    if authority == "SYS_ADMIN":
        hint = "A system administrator sees no devices: use a tenant administrator or a customer user."
        raise Problem("this is a system administrator (SYS_ADMIN)", hint)
    if authority not in {TENANT_ADMIN, CUSTOMER_USER}:
        raise Problem(
            "the account has neither a tenant's nor a customer's rights", "Use a tenant administrator."
        )
    run.authority = authority
    run.customer_id = str((user.get("customerId") or {}).get("id"))
    return f"{authority} by {'API key' if run.settings.api_key else 'password'}"


def _log_in(run: Run) -> None:
    peer = run.thingsboard
    credentials = {"username": run.settings.username, "password": run.settings.password}
    answer = peer.call("POST", "/api/auth/login", json=credentials)
    if answer.status == HTTPStatus.UNAUTHORIZED:
        said = str(answer.get("message")).lower()
        for words, message, hint in LOGIN_REFUSALS:
            if words in said:
                raise Problem(message, hint)
        raise Problem("ThingsBoard refused the login", "Check TB_USERNAME and TB_PASSWORD.")
    if answer.status != HTTPStatus.OK or not isinstance(answer.get("token"), str):
        hint = THINGSBOARD_HINTS.get(answer.status, "Does a proxy change POST /api/auth/login?")
        raise Problem(f"the login was answered {answer.status}, without a token", hint)
    run.login, run.claims = answer, decode_claims(answer.json["token"])
    scopes = run.claims.get("scopes")
    for scope, (message, hint) in TWO_FACTORS.items():
        if scope == answer.get("scope") or (isinstance(scopes, list) and scope in scopes):
            raise Problem(message, hint)
    run.use_tokens(answer)


def _try_api_key(run: Run) -> None:
    too_old = "API keys need ThingsBoard 4.3 or later: use TB_USERNAME and TB_PASSWORD."
    if run.version and run.version < FIRST_VERSION_WITH_API_KEYS:
        raise Problem(f"{_product(run)} has no API keys", too_old)
    peer = run.thingsboard
    peer.headers = {"X-Authorization": f"ApiKey {run.settings.api_key}"}
    answer = peer.call("GET", "/api/auth/user")
    if answer.status == HTTPStatus.UNAUTHORIZED:
        if "not active" in str(answer.get("message")):
            raise Problem(
                "the API key, or its user, is disabled", "Enable it in ThingsBoard: account, API keys."
            )
        raise Problem("the API key was refused", f"It is wrong, expired or deleted. {too_old}")
    # Versions that know no API keys send whoever comes without "Bearer" to the login page.
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        raise Problem("ThingsBoard does not know API keys", too_old)


def decode_claims(token: str) -> dict[str, Any]:
    """Return what a JWT says, its signature unverified, or nothing when it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def check_token(run: Run) -> str:
    """Look at the life of the token."""
    if run.settings.api_key:
        return "an API key needs no token"
    issued, expires = run.claims.get("iat"), run.claims.get("exp")
    if not isinstance(issued, int | float) or not isinstance(expires, int | float):
        raise Problem("the token tells no times", "The gateway will refresh it on refusal only.", Status.WARN)
    if expires <= time.time():
        raise Problem("the new token has already expired", "Set the clocks of both machines (NTP).")
    if expires - issued < SHORT_TOKEN_SECONDS:
        hint = "Every refresh costs time: raise the token's life in ThingsBoard's security settings."
        raise Problem(f"the token lives {expires - issued:.0f} s only", hint, Status.WARN)
    return f"lives {expires - issued:.0f} s"


def check_clock(run: Run) -> str:
    """Compare this clock with the token's and the Date header's, whichever is further off."""
    seen: list[float] = []
    login = run.login
    if login and isinstance(run.claims.get("iat"), int | float):
        seen.append(run.claims["iat"])
    with suppress(KeyError, TypeError, ValueError):
        seen.append(email.utils.parsedate_to_datetime(login.headers["date"]).timestamp() if login else 0)
    if not login or not seen:
        raise Problem(
            "ThingsBoard does not tell its time", "Make sure that both machines use NTP.", Status.WARN
        )
    # Both times are whole seconds cut off, and taken somewhere between request and answer.
    blur = 0.5 + login.round_trip / 2
    skews = [server + 0.5 - login.local_time for server in seen]
    skew = max(skews, key=abs)
    off = max(0.0, abs(skew) - blur)
    message = f"this clock is {off:.0f} s {'behind' if skew > 0 else 'ahead of'} ThingsBoard's"
    hint = "Set the clocks of both machines (NTP): tokens and telemetry times depend on them."
    if off > SKEW_FAILURE_SECONDS:
        raise Problem(message, hint)
    if off > SKEW_WARNING_SECONDS:
        raise Problem(message, hint, Status.WARN)
    return f"within {math.ceil(off + blur)} s of ThingsBoard's"


def check_refresh(run: Run) -> str:
    """Exchange the refresh token."""
    if run.settings.api_key:
        return "an API key needs no refresh"
    answer = run.thingsboard.call(
        "POST", "/api/auth/token", json={"refreshToken": run.tokens["refreshToken"]}
    )
    if answer.status != HTTPStatus.OK or not isinstance(answer.get("token"), str):
        hint = "The gateway must log in each time. All nodes need the same signing key and clock."
        raise Problem(f"the refresh was answered {answer.status}, without a token", hint)
    run.use_tokens(answer)
    run.thingsboard.expect("GET", "/api/auth/user")
    return "works"


def check_devices(run: Run) -> str:
    """List one device of what the account may see."""
    answer = run.thingsboard.expect("GET", run.device_list_path, params={"pageSize": 1, "page": 0})
    total = answer.get("totalElements")
    if not isinstance(total, int) or not isinstance(answer.get("data"), list):
        raise Problem("the device list has not ThingsBoard's form", "Does a proxy change the answers?")
    if total == 0 and run.authority == CUSTOMER_USER:
        raise Problem("no devices", "Assign devices to this customer in ThingsBoard.", Status.WARN)
    return f"{total} visible"


def check_device(run: Run) -> str:
    """Find the device of --device, or make one."""
    if run.options.device:
        run.device_id = _find_device(run, run.options.device)
        return f"uses the one of --device, keys {PREFIX}*"
    if run.authority == CUSTOMER_USER:
        hint = (
            "Name one of the customer's devices with --device; what is written there is removed afterwards."
        )
        raise Problem("a customer user cannot make a device", hint, Status.SKIP)
    # The name is known before the request leaves: should its answer be lost, clean-up finds the device by it.
    run.new_device = f"{PREFIX}{secrets.token_hex(8)}"
    body = {
        "name": run.new_device,
        "additionalInfo": {"description": "Made by tb_connection_check.py; safe to delete."},
    }
    answer = run.thingsboard.call("POST", "/api/device", json=body)
    if answer.status != HTTPStatus.OK:
        hint = THINGSBOARD_HINTS.get(answer.status, "") + " An existing device can be named with --device."
        if "limit" in str(answer.get("message")).lower():
            hint = "The tenant's device limit is reached: delete one, or name an existing one with --device."
        raise Problem(
            f"could not be made ({answer.status}{answer.reason(run.thingsboard.hidden)})", hint.strip()
        )
    run.device_id = str(uuid.UUID(answer.json["id"]["id"]))
    return f"{run.new_device} made for the check"


def _find_device(run: Run, wanted: str) -> str:
    with suppress(ValueError):
        device_id = str(uuid.UUID(wanted))
        answer = run.thingsboard.call("GET", f"/api/device/{device_id}")
        if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}:
            raise Problem(
                "no such device for this account", "Copy the id from the device's page in ThingsBoard."
            )
        if answer.status != HTTPStatus.OK:
            raise Problem(f"ThingsBoard answered {answer.status}", THINGSBOARD_HINTS.get(answer.status, ""))
        return device_id
    return _find_device_by_name(run, wanted.removeprefix("name:"))


def _find_device_by_name(run: Run, name: str) -> str:
    # The search also finds names that only contain this one; the end guards against a list that has none.
    for page in range(MOST_PAGES):
        query = {"pageSize": 100, "page": page, "textSearch": name}
        answer = run.thingsboard.expect("GET", run.device_list_path, params=query)
        for device in answer.get("data") or []:
            if device["name"] == name:
                return str(uuid.UUID(device["id"]["id"]))
        if not answer.get("hasNext"):
            break
    raise Problem("no device of this name for this account", "Names are exact, capitals included.")


def check_telemetry(run: Run) -> str:
    """Upload a number, a boolean and a text with a time of their own, and read the same back."""
    values = {run.key("temperature"): 25.6, run.key("is_on"): True, run.key("text"): "check"}
    ts = run.next_ts()
    run.has_written = True
    run.thingsboard.expect("POST", f"{run.telemetry_path}/timeseries/ANY", json={"ts": ts, "values": values})
    query = {"keys": ",".join(values), "startTs": ts, "endTs": ts + 1, "useStrictDataTypes": "true"}
    answer = run.thingsboard.expect("GET", f"{run.telemetry_path}/values/timeseries", params=query)
    for key, value in values.items():
        points = answer.get(key)
        if not points:
            raise Problem(
                f"{key} was saved but is not there", "See ThingsBoard's log: its database may be failing."
            )
        point = points[0]
        if point["ts"] != ts:
            raise Problem(
                f"{key} came back with another time", "Something between here and ThingsBoard changes data."
            )
        if not _is_same(point["value"], value):
            hint = (
                "Types are lost: this ThingsBoard ignores useStrictDataTypes; the gateway needs 3.6 or later."
            )
            raise Problem(f"{key} came back as another value or type", hint)
    return "25.6, true and a text came back exactly"


def _is_same(found: object, expected: object) -> bool:
    # In Python True equals 1, in JSON it does not.
    return found == expected and isinstance(found, bool) == isinstance(expected, bool)


def check_live(run: Run) -> str:
    """Subscribe to the check's device over ThingsBoard's WebSocket and see a point come."""
    if run.settings.api_key:
        hint = (
            "The gateway gets one for a tenant administrator's API key; a customer user needs TB_USERNAME "
            "and TB_PASSWORD for live data."
        )
        raise Problem("the WebSocket needs a JWT, which an API key does not give", hint, Status.SKIP)
    try:
        from websockets.exceptions import (  # noqa: PLC0415  # Optional: only this check needs it.
            ConnectionClosed,
            InvalidStatus,
            WebSocketException,
        )
        from websockets.sync.client import connect  # noqa: PLC0415
    except ImportError as exc:
        hint = "Run: python -m pip install 'websockets>=13'"
        raise Problem("websockets is not installed", hint, Status.SKIP) from exc
    settings, timeout = run.settings, run.options.timeout
    try:
        plain = _open_way(settings, timeout)
    except (OSError, http.client.HTTPException) as exc:
        if settings.proxy:
            raise Problem(
                "the proxy opens no way for a WebSocket", f"It must allow CONNECT. {PROXY_HINT}"
            ) from exc
        raise Problem("no connection for a WebSocket", "ThingsBoard was just there: see its log.") from exc
    plain.settimeout(None)
    tls = settings.tls_context(verify=settings.verify_tls) if settings.url.scheme == "https" else None
    address = f"ws{settings.url.scheme.removeprefix('http')}://{settings.url.netloc}/api/ws"
    # With a socket of ours redirects are not followed: the token goes nowhere else.
    options: dict[str, Any] = {"sock": plain, "ssl": tls, "compression": None, "max_size": None}
    try:
        with (
            closing(plain),
            connect(address, open_timeout=timeout, close_timeout=CLOSE_SECONDS, **options) as wire,
        ):
            return _follow(run, wire)
    except ConnectionClosed as exc:
        raise Problem(*_farewell(exc.rcvd.code if exc.rcvd else None)) from exc
    except (WebSocketException, ValueError) as exc:
        refusal = exc if isinstance(exc, InvalidStatus) else exc.__cause__ or exc.__context__
        status = f" ({refusal.response.status_code})" if isinstance(refusal, InvalidStatus) else ""
        raise Problem(f"the WebSocket handshake was refused{status}", UPGRADE_HINT) from exc
    except TimeoutError as exc:
        raise Problem(f"no answer to the WebSocket handshake within {timeout:g} s", UPGRADE_HINT) from exc
    except OSError as exc:
        raise Problem("the connection broke in the WebSocket handshake", UPGRADE_HINT) from exc


def _farewell(code: int | None) -> tuple[str, str]:
    if code == BAD_TOKEN:
        return "ThingsBoard refused the token on its WebSocket", THINGSBOARD_HINTS[401]
    if code == POLICY:
        hint = "The tenant profile limits WebSocket sessions and subscriptions: close others or raise it."
        return f"ThingsBoard's WebSocket closed for a limit ({code})", hint
    how = f"({code})" if code else "without a word"
    return f"the WebSocket was closed {how}", f"See ThingsBoard's log. {UPGRADE_HINT}"


def _follow(run: Run, wire: Any) -> str:
    """Authenticate, subscribe without scope and keys, upload a point and wait for it."""
    wire.send(json.dumps({"authCmd": {"cmdId": 0, "token": run.tokens["token"]}, "cmds": []}))
    command = {"type": "TIMESERIES", "entityType": "DEVICE", "entityId": run.device_id, "cmdId": SUBSCRIPTION}
    wire.send(json.dumps({"cmds": [command]}))
    if not any(frame.get("subscriptionId") == SUBSCRIPTION for frame in _frames(run, wire)):
        raise Problem(
            f"the WebSocket is open, but silent for {run.options.timeout:g} s",
            f"Frames get lost, or ThingsBoard is overloaded. {UPGRADE_HINT}",
        )
    key, ts = run.key("temperature"), run.next_ts()
    run.has_written = True
    body = {"ts": ts, "values": {key: 25.6}}
    started = time.monotonic()
    run.thingsboard.expect("POST", f"{run.telemetry_path}/timeseries/ANY", json=body)
    for frame in _frames(run, wire):
        points = (frame.get("data") or {}).get(key) or []
        if any(point[0] == ts for point in points):
            return f"a point was told {(time.monotonic() - started) * 1000:.0f} ms after its upload began"
    raise Problem(
        f"a point was stored, but not told within {run.options.timeout:g} s",
        "ThingsBoard's services do not reach each other, or its queue lags: see its log.",
    )


def _frames(run: Run, wire: Any) -> Iterator[dict[str, Any]]:
    """Yield what comes within the time limit; a frame that tells an error is a Problem."""
    deadline = time.monotonic() + run.options.timeout
    while (left := deadline - time.monotonic()) > 0:
        try:
            frame = json.loads(wire.recv(timeout=left))
        except TimeoutError:
            return
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise Problem("a frame is none of ThingsBoard's", "Something else answers on /api/ws.")
        if frame.get("errorCode"):
            hint = "The account must be allowed to read the device's telemetry; see ThingsBoard's log."
            raise Problem("ThingsBoard refused the subscription", hint)
        yield frame


def check_attributes(run: Run) -> str:
    """Write, read and delete a server attribute."""
    # ThingsBoard turns text of digits into a number, and one token in forty-three is nothing else.
    key, value = run.key("attribute"), f"check-{secrets.token_hex(4)}"
    read = f"{run.telemetry_path}/values/attributes/SERVER_SCOPE"
    run.has_written = True
    run.thingsboard.expect("POST", f"{run.telemetry_path}/attributes/SERVER_SCOPE", json={key: value})
    found = run.thingsboard.expect("GET", read, params={"keys": key}).json
    if not isinstance(found, list) or [entry.get("value") for entry in found] != [value]:
        raise Problem(
            "the attribute was saved but did not come back", "See ThingsBoard's log and its database."
        )
    _delete_attributes(run)
    if run.thingsboard.expect("GET", read, params={"keys": key}).json:
        raise Problem(
            "the attribute was deleted but is still there", "See ThingsBoard's log and its database."
        )
    return "written, read and deleted"


def check_rpc(run: Run) -> str:
    """Send a command to the check's device, which nobody plays: ThingsBoard has to say so."""
    if run.options.device and not run.options.rpc:
        # A device of somebody's is sent nothing unasked.
        path = f"/api/rpc/persistent/device/{run.device_id}"
        run.thingsboard.expect("GET", path, params={"pageSize": 1, "page": 0})
        return "allowed; --rpc METHOD sends the device a command"
    method = run.options.rpc or f"{PREFIX}rpc"
    body: dict[str, Any] = {"method": method, "params": {}, "timeout": RPC_SECONDS * 1000}
    path = f"/api/plugins/rpc/twoway/{run.device_id}"
    answer = run.thingsboard.call("POST", path, json=body, patience=RPC_SECONDS)
    word = RPC_OUTCOMES.get(answer.status)
    if word is None:
        hint = THINGSBOARD_HINTS.get(answer.status, "See ThingsBoard's log for the time of this check.")
        raise Problem(f"ThingsBoard answered {answer.status}", hint)
    return _weigh_outcome(run, word, answer.round_trip)


def _weigh_outcome(run: Run, outcome: str, seconds: float) -> str:
    """Say what became of a command: nobody plays the check's own device, a named one should answer."""
    wanted = "answered" if run.options.rpc else "offline"
    if outcome != wanted and run.options.rpc:
        hint = "Does it poll for commands, or is it connected by MQTT? Does it know this method?"
        raise Problem(f"the device of --device: {outcome}", hint, Status.WARN)
    if outcome != wanted:
        hint = "Another client uses this device, or something between here and ThingsBoard answers."
        raise Problem(f"a device that is not there: {outcome}", hint)
    whose = "the device of --device" if run.options.rpc else "a device that is not there"
    return f"{whose}: {outcome} after {seconds:.1f} s"


def _delete_attributes(run: Run) -> None:
    path = f"/api/plugins/telemetry/DEVICE/{run.device_id}/SERVER_SCOPE"
    run.thingsboard.expect("DELETE", path, params={"keys": run.key("attribute")})


def clean_up(run: Run) -> str:
    """Remove all that the check has made; also the last thing done after Ctrl-C."""
    if run.new_device:
        left = f"the device {run.new_device}"
    elif run.has_written:
        left = f"keys {PREFIX}* of the device"
    else:
        raise Problem("nothing was made", "", Status.SKIP)
    try:
        return _delete_device(run) if run.new_device else _delete_data(run)
    except (Problem, KeyboardInterrupt) as exc:
        reason = exc.message if isinstance(exc, Problem) else "interrupted"
        raise Problem(f"{left} is still there: {reason}", "Delete it by hand in ThingsBoard.") from exc


def _delete_device(run: Run) -> str:
    if not run.device_id:
        try:
            run.device_id = _find_device_by_name(run, run.new_device)
        except Problem as problem:
            if problem.message.startswith("no device of this name"):
                raise Problem("nothing was made", "", Status.SKIP) from problem
            raise
    answer = run.thingsboard.call("DELETE", f"/api/device/{run.device_id}")
    if answer.status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
        raise Problem(f"ThingsBoard answered {answer.status}")
    return "the check's device is removed"


def _delete_data(run: Run) -> str:
    keys = ",".join(run.key(name) for name in ("temperature", "is_on", "text"))
    query = {"keys": keys, "deleteAllDataForKeys": "true"}
    run.thingsboard.expect("DELETE", f"{run.telemetry_path}/timeseries/delete", params=query)
    _delete_attributes(run)
    return f"keys {PREFIX}* are removed"


def check_gateway_live(run: Run) -> str:
    """Ask whether the gateway's process answers."""
    answer = run.gateway.expect("GET", "/health/live")
    if not isinstance(answer.get("status"), str):
        raise Problem("something answered, but not as the gateway does", "Check host and port of --gateway.")
    return "answers"


def check_gateway_ready(run: Run) -> str:
    """Ask whether the gateway is ready, and show how it sees ThingsBoard and Redis."""
    answer = run.gateway.call("GET", "/health/ready")
    checks = answer.get("checks")
    states = _states(checks) if isinstance(checks, dict) else {}
    shown = ", ".join(f"{name} {state}" for name, state in states.items()) or "no checks shown"
    if answer.status != HTTPStatus.OK:
        hint = GATEWAY_HINTS.get(answer.status, "See the gateway's log for what is not ready.")
        raise Problem(f"not ready ({answer.status}): {shown}", hint)
    if bad := [name for name, state in states.items() if state not in GOOD_STATES]:
        raise Problem(
            shown, f"The gateway runs, but not well: see its log about {', '.join(bad)}.", Status.WARN
        )
    return shown


GOOD_STATES = {
    "ok",
    "pass",
    "up",
    "ready",
    "true",
    "healthy",
    "disabled",
    "unused",
    "memory",
    "connected",
    "none",
}


def _states(checks: dict[str, Any]) -> dict[str, str]:
    states = {}
    for name, value in checks.items():
        word = str(value.get("status") if isinstance(value, dict) else value).lower()
        if re.fullmatch(r"\w{1,40}", name):
            states[name] = word if re.fullmatch(r"[a-z_]{1,20}", word) else "unclear"
    return states


def _expect_refusal(run: Run, headers: dict[str, str]) -> str:
    answer = run.gateway.call("GET", "/api/v1/tb/devices", headers=headers)
    if answer.status == HTTPStatus.OK:
        raise Problem("the gateway let a stranger in", "Take it off the network until you know why.")
    if answer.status != HTTPStatus.UNAUTHORIZED:
        hint = GATEWAY_HINTS.get(answer.status, "Is this the gateway?")
        raise Problem(f"answered {answer.status}, not 401", hint)
    if not isinstance(answer.json, dict) or not answer.json.keys() >= ERROR_FIELDS:
        raise Problem(
            "401, but not in the gateway's form", "Something in front of the gateway answers in its place."
        )
    return "refused (401)"


def _with_key(run: Run) -> dict[str, str]:
    if not run.settings.gateway_key:
        raise Problem(
            "no key for the gateway given", "Set GATEWAY_API_KEY (or API_KEY) in the environment, or --key."
        )
    return {"X-API-Key": run.settings.gateway_key}


def check_gateway_devices(run: Run) -> str:
    """List a device through the gateway."""
    answer = run.gateway.expect("GET", "/api/v1/tb/devices", params={"page_size": 1}, headers=_with_key(run))
    total = (answer.get("pagination") or {}).get("total_elements")
    if not isinstance(total, int):
        raise Problem("the device list has not the gateway's form", "Check host and port of --gateway.")
    return f"{total} visible to this key"


def check_gateway_whoami(run: Run) -> str:
    """Ask what the key may do."""
    scopes = run.gateway.expect("GET", "/api/v1/tb/whoami", headers=_with_key(run)).get("scopes")
    words = (
        [word for word in scopes if re.fullmatch(r"[a-z:*]{1,30}", str(word))]
        if isinstance(scopes, list)
        else []
    )
    return f"scopes: {', '.join(words) or 'not told'}"


def check_gateway_headers(run: Run) -> str:
    """Look for the rate-limit and security headers on an ordinary answer."""
    answer = run.gateway.expect("GET", "/api/v1/tb/devices", params={"page_size": 1}, headers=_with_key(run))
    missing = [name for name in RATE_LIMIT_HEADERS if name not in answer.headers]
    missing += [
        " or ".join(names) for names in SECURITY_HEADERS if not any(name in answer.headers for name in names)
    ]
    if missing:
        hint = "A proxy in front of the gateway drops them, or an old gateway answers."
        raise Problem(f"missing headers: {', '.join(missing)}", hint)
    return "rate-limit and security headers are there"


def check_gateway_telemetry(run: Run) -> str:
    """Upload through the gateway to the check's device and read the same back."""
    key, ts, headers = run.key("temperature"), run.next_ts(), _with_key(run)
    path = f"/api/v1/tb/devices/{quote(run.device_id)}/telemetry"
    run.has_written = True
    body = {key: [{"ts": ts, "value": 25.6}]}
    run.gateway.expect("POST", path, status=HTTPStatus.CREATED, json=body, headers=headers)
    answer = run.gateway.expect("GET", f"{path}/latest", params={"keys": key}, headers=headers)
    point = (answer.get("data") or {}).get(key)
    if not isinstance(point, dict) or point.get("ts") != ts or not _is_same(point.get("value"), 25.6):
        hint = "Does the gateway serve this ThingsBoard? Then see its log for the time of this check."
        raise Problem("25.6 was uploaded but did not come back", hint)
    return "25.6 came back exactly"


def check_gateway_stream(run: Run) -> str:
    """Open the gateway's event stream of the check's device, upload a point and see its event come."""
    key, ts, headers = run.key("temperature"), run.next_ts(), _with_key(run)
    path = f"/api/v1/tb/devices/{quote(run.device_id)}/telemetry"
    run.has_written = True
    query = {"keys": key, "first_values": "false"}
    with closing(run.gateway.listen(f"{path}/stream", params=query, headers=headers)) as lines:
        next(lines)
        started = time.monotonic()
        body = {key: [{"ts": ts, "value": 25.6}]}
        run.gateway.expect("POST", path, status=HTTPStatus.CREATED, json=body, headers=headers)
        stored = time.monotonic()
        for line in lines:
            if _is_event(line, key, ts):
                return f"an event came {(time.monotonic() - started) * 1000:.0f} ms after the upload began"
            if time.monotonic() - stored > run.options.timeout:
                break
    if time.monotonic() - stored < run.options.timeout:
        hint = "A proxy ends long answers, or the gateway stopped: see its log."
        raise Problem("the stream ended before the event of a stored point came", hint)
    message = f"a point was stored, but no event came within {run.options.timeout:g} s"
    raise Problem(message, BUFFER_HINT)


def _is_event(line: str, key: str, ts: int) -> bool:
    with suppress(ValueError, RecursionError):
        event = json.loads(line.removeprefix("data:"))
        return isinstance(event, dict) and (event.get("key"), event.get("ts")) == (key, ts)
    return False


def check_gateway_rpc(run: Run) -> str:
    """Send a command through the gateway: at once refused for a device that is not there."""
    if run.options.device and not run.options.rpc:
        path = f"/api/v1/tb/devices/{quote(run.device_id)}/rpc"
        answer = run.gateway.call("GET", path, params={"page_size": 1}, headers=_with_key(run))
    else:
        path = f"/api/v1/tb/devices/{quote(run.device_id)}/rpc/twoway"
        body = {
            "method": run.options.rpc or f"{PREFIX}rpc",
            "timeout": RPC_SECONDS * 1000,
            "fail_fast": not run.options.rpc,
        }
        answer = run.gateway.call("POST", path, json=body, headers=_with_key(run), patience=RPC_SECONDS)
    if answer.status == HTTPStatus.FORBIDDEN:
        raise Problem(
            "the key lacks the scope rpc:send", "Give it the scope if it is to command.", Status.SKIP
        )
    if run.options.device and not run.options.rpc and answer.status == HTTPStatus.OK:
        return "allowed; --rpc METHOD sends the device a command"
    outcome = str(answer.get("outcome") or (answer.get("details") or {}).get("outcome"))
    if outcome not in RPC_OUTCOMES.values():
        raise Problem(
            f"{GATEWAY} answered {answer.status}", GATEWAY_HINTS.get(answer.status, "See the gateway's log.")
        )
    return _weigh_outcome(run, outcome, answer.round_trip)


CHECKS = (
    Check("configuration", "Configuration", check_configuration),
    Check("name_resolution", "Name resolution", check_name_resolution, ("configuration",)),
    Check("tcp", "TCP connection", check_tcp, ("name_resolution",)),
    Check("tls", "TLS", check_tls, ("tcp",)),
    Check("thingsboard", "ThingsBoard", check_thingsboard, ("tls",)),
    Check("login", "Login", check_login, ("thingsboard",)),
    Check("version", "Version", check_version, ("thingsboard",)),
    Check("token", "Token", check_token, ("login",)),
    Check("clock", "Clock", check_clock, ("login",)),
    Check("refresh", "Token refresh", check_refresh, ("login",)),
    Check("devices", "Devices", check_devices, ("login",)),
    Check("device", "Device for the check", check_device, ("login",)),
    Check("telemetry", "Telemetry", check_telemetry, ("device",)),
    Check("live", "Live data", check_live, ("telemetry",)),
    Check("attributes", "Attributes", check_attributes, ("device",)),
    Check("rpc", "Commands to devices", check_rpc, ("device",)),
)
GATEWAY_CHECKS = (
    Check("gateway_live", "Gateway", check_gateway_live, ("configuration",)),
    Check("gateway_ready", "Gateway ready", check_gateway_ready, ("gateway_live",)),
    Check("gateway_no_key", "Gateway without a key", lambda run: _expect_refusal(run, {}), ("gateway_live",)),
    Check(
        "gateway_wrong_key",
        "Gateway with a wrong key",
        lambda run: _expect_refusal(run, {"X-API-Key": secrets.token_urlsafe(32)}),
        ("gateway_live",),
    ),
    Check("gateway_devices", "Gateway devices", check_gateway_devices, ("gateway_live",)),
    Check("gateway_whoami", "Gateway key", check_gateway_whoami, ("gateway_devices",)),
    Check("gateway_headers", "Gateway headers", check_gateway_headers, ("gateway_devices",)),
    Check("gateway_telemetry", "Gateway telemetry", check_gateway_telemetry, ("gateway_devices", "device")),
    Check("gateway_stream", "Gateway live data", check_gateway_stream, ("gateway_telemetry",)),
    Check("gateway_rpc", "Gateway commands", check_gateway_rpc, ("gateway_devices", "device")),
)
CLEAN_UP = Check("clean_up", "Clean-up", clean_up)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # What follows the colon is what was typed, and that may be a key.
        super().error(message.partition(":")[0])


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; a wrong use ends the program with exit code 2."""
    parser = _Parser(
        prog="tb_connection_check.py", description="Check the way to ThingsBoard and to the gateway."
    )
    parser.add_argument(
        "--device", metavar="ID_OR_NAME", help="use this device instead of making one for the check"
    )
    parser.add_argument("--rpc", metavar="METHOD", help="send the device of --device this command")
    parser.add_argument("--upstream", metavar="NAME", help="check this one of UPSTREAMS_FILE")
    parser.add_argument("--gateway", metavar="URL", help="check this gateway, too")
    parser.add_argument("--key", help="its key; better in GATEWAY_API_KEY, where no process list shows it")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=DEFAULT_TIMEOUT_SECONDS, help="seconds a request"
    )
    parser.add_argument("--env-file", metavar="FILE", help="read this file instead of .env")
    options = parser.parse_args(arguments)
    if not 0 < options.timeout <= LONGEST_TIMEOUT_SECONDS:
        parser.error(f"--timeout must be above 0 and at most {LONGEST_TIMEOUT_SECONDS:g}")
    if options.key and not options.gateway:
        parser.error("--key needs --gateway")
    if options.rpc and not options.device:
        parser.error("--rpc needs --device")
    if options.env_file and not Path(options.env_file).is_file():
        parser.error("--env-file names no file")
    options.env_file = options.env_file or ".env"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run all checks, always clean up, and return the exit code."""
    options = parse_arguments(arguments)
    report, run = Report(as_json=options.json), Run(options)
    try:
        for check in CHECKS + (GATEWAY_CHECKS if options.gateway else ()):
            report.perform(check, run)
    except KeyboardInterrupt:
        report.is_interrupted = True
    finally:
        report.perform(CLEAN_UP, run)
        run.close()
    report.finish()
    return report.exit_code


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # `timeout` and service managers send SIGTERM: the check's device must not stay behind.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except BrokenPipeError:
        # The reader has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
