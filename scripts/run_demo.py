"""The demo: simulator and gateway as children, lines to paste, and an end that leaves nothing behind.

Runs in `.venv`; `scripts/demo` makes that and starts this.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dotenv import dotenv_values

from app import configuration
from app.errors import ConfigurationError
from app.keys.key_format import make_key

LOGS = Path(".venv") / "demo-logs"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
START_SECONDS = 60.0
#: For running requests and open streams to end; a second Ctrl-C cuts it short.
STOP_SECONDS = 5.0
POLL_SECONDS = 0.1
TAIL_LINES = 15
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to recognise, not to listen on
SIMULATOR_LOGIN = {"TB_USERNAME": "tenant@thingsboard.org", "TB_PASSWORD": "tenant"}
#: A sample device that keeps sending, and one that does not, so that what is uploaded stays its latest value.
SENDING_DEVICE = "Demo%20Kitchen"
QUIET_DEVICE = "DHT11%20Demo%20Device"


class CannotStart(Exception):
    """The demo cannot run, for this reason."""


class Stopped(Exception):
    """Somebody asked for the end."""


@dataclass
class Child:
    """One of our processes, in a session of its own so that only we signal it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Return the last lines it wrote."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:])


@dataclass
class Demo:
    """The children and the signals received; the handler only takes notes, so no child is lost in a race."""

    environment: dict[str, str]
    #: Where the children run: a `.env` there counts.
    folder: Path = Path()
    children: list[Child] = field(default_factory=list)
    received: list[int] = field(default_factory=list)

    def start(self, name: str, log: str, *arguments: str) -> None:
        """Start `python -m ...`, its output in a log file."""
        LOGS.mkdir(parents=True, exist_ok=True)
        path = LOGS / log
        with path.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                [sys.executable, "-m", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.children.append(Child(name, process, path))

    def pause(self) -> None:
        """Wait a moment, then raise if the end was asked for or a child has died."""
        time.sleep(POLL_SECONDS)
        if self.received:
            raise Stopped
        for child in self.children:
            code = child.process.poll()
            if code is not None:
                raise CannotStart(
                    f"The {child.name} ended with exit code {code}. Its last lines:\n{child.tail()}"
                )

    def stop(self) -> None:
        """End all children: the gateway first, for its running requests still need ThingsBoard."""
        asked = len(self.received)
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while (
                child.process.poll() is None and time.monotonic() < deadline and len(self.received) <= asked
            ):
                time.sleep(POLL_SECONDS / 4)
            # Workers of the gateway are in its group, too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


@dataclass(frozen=True)
class Gateway:
    """How to reach the gateway from here."""

    base: str
    key: str | None

    def get(self, path: str) -> Any:
        """Return the JSON answer, or None while there is none."""
        headers = {"X-API-Key": self.key} if self.key else {}
        request = urllib.request.Request(self.base + path, headers=headers)  # noqa: S310 - our own address
        # No proxy stands between us and our child, and its certificate is made for another name.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323, SLF001 - see above
        )
        try:
            with opener.open(request, timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None


def main() -> int:
    """Run the demo until a signal or until a child dies."""
    try:
        environment, with_simulator = plan(given_environment())
    except (CannotStart, ConfigurationError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"❌ {line}\n")
        return 2
    demo = Demo(environment)
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: demo.received.append(number))
    try:
        serve(demo, with_simulator=with_simulator)
    except Stopped:
        say("\n👋 Stopping")
    except CannotStart as error:
        sys.stderr.write(f"❌ {error}\n")
        return 1
    finally:
        demo.stop()
    return 0


def given_environment() -> dict[str, str]:
    """Return what the gateway would see: the environment over `.env`, empty values counting as absent."""
    from_file = {name.upper(): value for name, value in dotenv_values(".env").items() if value}
    return from_file | {name: value for name, value in os.environ.items() if value}


def plan(given: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Return the children's environment and whether a simulator is needed; nothing has started yet."""
    environment = {**given, "PYTHONUNBUFFERED": "1"}
    with_simulator = "TB_HOST" not in given
    host = environment.setdefault("HOST", "127.0.0.1")
    port = environment["PORT"] = claim_port("PORT", host, given.get("PORT", "8000"))
    if with_simulator:
        upstream = claim_port("TB_SIMULATOR_PORT", "127.0.0.1", given.get("TB_SIMULATOR_PORT", "9090"))
        if upstream == port:
            raise CannotStart(f"PORT and TB_SIMULATOR_PORT are both {port}: set one of them to another.")
        forget = {"TB_API_KEY", "TB_CA_FILE"}
        environment = {name: value for name, value in environment.items() if name not in forget}
        environment |= {
            **SIMULATOR_LOGIN,
            "TB_HOST": f"http://127.0.0.1:{upstream}",
            "TB_SIMULATOR_PORT": upstream,
        }
    if "API_KEYS_FILE" not in given:
        environment.setdefault("API_KEY", make_key("demo"))
    # Checked here, so that a fault is told before anything starts.
    os.environ.clear()
    os.environ.update(environment)
    configuration.load()
    return environment, with_simulator


def claim_port(name: str, host: str, text: str, *, script: str = "scripts/demo") -> str:
    """Return the port if it is free; 0 means any."""
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:  # noqa: PLR2004 - the largest port
        raise CannotStart(f"{name}: must be a port number, not {text!r}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(text)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotStart(
                    f"Port {text} is in use. Choose another one: {name}={int(text) + 1} {script}"
                ) from None
            raise CannotStart(
                f"Cannot listen on {host}:{text} ({error.strerror}): check HOST and {name}."
            ) from None
        return str(probe.getsockname()[1])


def serve(demo: Demo, *, with_simulator: bool) -> NoReturn:
    """Start the children, wait until they answer, tell how to use them, and watch them."""
    environment = demo.environment
    started = time.monotonic()
    if with_simulator:
        port = environment["TB_SIMULATOR_PORT"]
        say(f"🚀 Starting the ThingsBoard simulator on http://127.0.0.1:{port}")
        arguments = ("tb_simulator", "--host", "127.0.0.1", "--port", port, "--demo-data")
        demo.start("ThingsBoard simulator", f"simulator-{port}.log", *arguments)
    gateway = gateway_at(environment)
    say(f"🚀 Starting the gateway on {gateway.base} for {environment['TB_HOST']}")
    demo.start("gateway", f"gateway-{environment['PORT']}.log", "app", "serve")
    wait_for(demo, "/health/ready", gateway)
    devices = list_devices(demo, gateway, with_simulator=with_simulator)
    say(f"✅ Ready after {time.monotonic() - started:.1f} s\n")
    say(welcome(gateway, devices, with_simulator=with_simulator))
    while True:
        demo.pause()


def gateway_at(environment: Mapping[str, str]) -> Gateway:
    """Return how to reach the gateway that this environment makes."""
    host = LOOPBACK_OF.get(environment["HOST"], environment["HOST"])
    name = f"[{host}]" if ":" in host else host
    scheme = "https" if "SSL_CERTFILE" in environment else "http"
    return Gateway(f"{scheme}://{name}:{environment['PORT']}", environment.get("API_KEY"))


def wait_for(demo: Demo, path: str, gateway: Gateway) -> Any:
    """Return the answer once there is a good one."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        answer = gateway.get(path)
        if answer is not None:
            return answer
        demo.pause()
    gateway_child = demo.children[-1]
    raise CannotStart(
        f"No answer at {path} after {START_SECONDS:.0f} s. The last lines:\n{gateway_child.tail()}"
    )


def list_devices(demo: Demo, gateway: Gateway, *, with_simulator: bool) -> list[dict[str, Any]]:
    """Return the first devices; a real ThingsBoard may be away, which the gateway survives."""
    if gateway.key is None:
        return []
    path = "/api/v1/tb/devices?page_size=10"
    answer = wait_for(demo, path, gateway) if with_simulator else gateway.get(path)
    if answer is None:
        say("⚠️  ThingsBoard lists no devices yet. To see why: .venv/bin/python tb_connection_check.py")
        return []
    devices: list[dict[str, Any]] = answer["data"]
    say(f"📟 {answer['pagination']['total_elements']} devices")
    return devices


def welcome(gateway: Gateway, devices: list[dict[str, Any]], *, with_simulator: bool) -> str:
    """Return address, key and lines to paste."""
    curl = "curl -sS" + (" --insecure" if gateway.base.startswith("https") else "")
    key = gateway.key or "$API_KEY"
    header = f'-H "X-API-Key: {key}"'
    api = f"{gateway.base}/api/v1/tb"
    if with_simulator:
        sending, written = f"name:{SENDING_DEVICE}", f"name:{QUIET_DEVICE}"
    else:
        sending = devices[0]["id"]["id"] if devices else "$DEVICE"
        written = "$DEVICE"
    hour_ago = "$(( $(date +%s) - 3600 ))000"
    point = '{"temperature":[{"ts":\'$(date +%s)000\',"value":25.6}]}'
    upload = f"-X POST {header} -H 'Content-Type: application/json' -d '{point}'"
    lines = [
        f"Gateway  {gateway.base}",
        f"API key  {key}" if gateway.key else "API key  one from your API_KEYS_FILE: export API_KEY=...",
        f"API docs {gateway.base}/docs",
        f"Logs     {LOGS}/",
        "",
        "Paste these into another terminal:",
        "# List devices",
        f'{curl} {header} "{api}/devices?page_size=5"',
        "# Latest values",
        f'{curl} {header} "{api}/devices/{sending}/telemetry/latest"',
        "# Upload a value"
        + ("" if with_simulator else " (first set DEVICE to an id from the list: it writes)"),
        f'{curl} {upload} "{api}/devices/{written}/telemetry"',
        "# Read it back",
        f'{curl} {header} "{api}/devices/{written}/telemetry/latest?keys=temperature"',
        "# The last hour as CSV",
        f'{curl} {header} "{api}/devices/{sending}/telemetry?format=csv&start_ts={hour_ago}"',
        "",
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
