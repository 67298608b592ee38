"""The Smart Home example with all that is below it: simulator, gateway, and two people who live there.

Runs in `.venv`; `scripts/smart_home` makes that and starts this.
"""

import hashlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.keys.key_format import make_key
from app.settings import Settings
from scripts.run_demo import (
    LOGS,
    LOOPBACK_OF,
    SIGNALS,
    SIMULATOR_LOGIN,
    CannotStart,
    Demo,
    Gateway,
    Stopped,
    claim_port,
    say,
    wait_for,
)
from tb_simulator.demo import CLAIM_CODES, ROOM_TYPE, ROOMS, SILENT_CODE, SILENT_ROOM

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "scripts/smart_home"
SCOPES = ["attributes:read", "devices:read", "rpc:send", "telemetry:read"]
LABELS = dict(zip(ROOMS, CLAIM_CODES, strict=True)) | {SILENT_ROOM: SILENT_CODE}
CALL_SECONDS = 10


@dataclass
class Person:
    """Somebody who lives in the demo."""

    name: str
    home: str
    rooms: tuple[str, ...]
    password: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def email(self) -> str:
        """Return the address to log in with."""
        return f"{self.name.lower()}@example.com"


PEOPLE = (
    Person("Alice", "Villa", ("Living room", "Kitchen", SILENT_ROOM)),
    Person("Bob", "Flat", ("Bedroom",)),
)
#: Nobody's, to be claimed by whoever tries the page.
LEFT_OVER = "Office"


@dataclass(frozen=True)
class Ports:
    """Where everything listens."""

    simulator: str
    gateway: str
    product: str
    product_host: str

    @classmethod
    def claim(cls) -> "Ports":
        """Take them from the environment and see that they are free."""
        host = os.environ.get("SMART_HOME_HOST") or "127.0.0.1"
        wanted = (
            ("TB_SIMULATOR_PORT", "127.0.0.1", "9090"),
            ("PORT", "127.0.0.1", "8000"),
            ("SMART_HOME_PORT", host, "8080"),
        )
        ports = [
            claim_port(name, where, os.environ.get(name) or default, script=SCRIPT)
            for name, where, default in wanted
        ]
        if len(set(ports)) < len(ports):
            raise CannotStart("TB_SIMULATOR_PORT, PORT and SMART_HOME_PORT must differ.")
        return cls(ports[0], ports[1], ports[2], host)


class Product:
    """The example's own API, as any app would call it."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(self, path: str, body: dict[str, Any], token: str | None = None) -> Any:
        """Send JSON and return the answer."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, headers=headers)  # noqa: S310 - our own
        try:
            with self._opener.open(request, timeout=CALL_SECONDS) as answer:
                return json.load(answer)
        except OSError as error:
            raise CannotStart(f"The example refused {path}: {error}. See {LOGS}/.") from None

    def move_in(self, person: Person) -> None:
        """Sign somebody up, with a home and rooms."""
        account = {"email": person.email, "password": person.password, "name": person.name}
        token = self.post("/auth/register", account)["access_token"]
        home = self.post("/homes", {"name": person.home}, token)["id"]
        for room in person.rooms:
            label = {"device": f"Demo {room}", "claim_code": LABELS[room]}
            self.post(f"/homes/{home}/rooms", {"name": room, **label}, token)


def main() -> int:
    """Run until a signal or until a child dies."""
    try:
        ports = Ports.claim()
    except CannotStart as error:
        sys.stderr.write(f"❌ {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="smart-home-") as folder:
        # Run there, the children read no `.env`: what it says of a real ThingsBoard is not meant here.
        demo = Demo({}, folder=Path(folder))
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: demo.received.append(number))
        try:
            serve(demo, ports)
        except Stopped:
            say("\n👋 Stopping")
        except CannotStart as error:
            sys.stderr.write(f"❌ {error}\n")
            return 1
        finally:
            demo.stop()
    return 0


def serve(demo: Demo, ports: Ports) -> None:
    """Start the children, let people move in, tell what to click, and watch the children."""
    started = time.monotonic()
    base = children_environment()
    demo.environment = base
    say(f"🚀 Starting the ThingsBoard simulator on http://127.0.0.1:{ports.simulator}")
    arguments = ("tb_simulator", "--host", "127.0.0.1", "--port", ports.simulator, "--demo-data")
    demo.start("ThingsBoard simulator", f"simulator-{ports.simulator}.log", *arguments)

    key = make_key("smart-home")
    keys_file = demo.folder / "keys.toml"
    keys_file.write_text(key_entry(key), "utf-8")
    gateway = Gateway(f"http://127.0.0.1:{ports.gateway}", key)
    demo.environment = base | SIMULATOR_LOGIN
    demo.environment |= {
        "TB_HOST": f"http://127.0.0.1:{ports.simulator}",
        "HOST": "127.0.0.1",
        "PORT": ports.gateway,
        "API_KEYS_FILE": str(keys_file),
    }
    say(f"🚀 Starting the gateway on {gateway.base}, with a key for devices of the type {ROOM_TYPE}")
    demo.start("gateway", f"gateway-{ports.gateway}.log", "app", "serve")
    wait_for(demo, "/health/ready", gateway)
    wait_for(demo, "/api/v1/tb/whoami", gateway)

    address = f"http://{LOOPBACK_OF.get(ports.product_host, ports.product_host)}:{ports.product}"
    demo.environment = base | {
        "SMART_HOME_SECRET": secrets.token_urlsafe(48),
        "SMART_HOME_GATEWAY_URL": gateway.base,
        "SMART_HOME_GATEWAY_KEY": key,
        "SMART_HOME_DATABASE_URL": f"sqlite:///{demo.folder / 'smart_home.db'}",
        "SMART_HOME_HOST": ports.product_host,
        "SMART_HOME_PORT": ports.product,
    }
    say(f"🚀 Starting Smart Home on {address}")
    demo.start("Smart Home example", f"smart-home-{ports.product}.log", "examples.smart_home", "serve")
    wait_for(demo, "/health", Gateway(address, None))
    product = Product(address)
    for person in PEOPLE:
        product.move_in(person)
    say(f"✅ Ready after {time.monotonic() - started:.1f} s\n")
    say(welcome(address, gateway))
    while True:
        demo.pause()


def children_environment() -> dict[str, str]:
    """Return our environment without settings of a gateway or a product that are meant for others."""
    ours = {name.upper() for name in Settings.model_fields} | {"TB_SIMULATOR_PORT"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in ours and not name.upper().startswith("SMART_HOME_")
    }
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def key_entry(key: str) -> str:
    """Return the key's table for the gateway's key file."""
    return (
        '[[keys]]\nname = "Smart Home"\nid = "smart-home"\n'
        f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
        f"scopes = {json.dumps(SCOPES)}\n"
        f'device_types = ["{ROOM_TYPE}"]\n'
        'rate_limit = "100/second"\n'
    )


def welcome(address: str, gateway: Gateway) -> str:
    """Return the address, the people and what to click."""
    people = [
        f"  {each.email:<18} password {each.password}   {each.home}: {', '.join(each.rooms)}"
        for each in PEOPLE
    ]
    return "\n".join(
        [
            f"Smart Home  {address}",
            *people,
            "",
            "What to click",
            "  1. Log in as Alice. The values move by themselves; her garage is offline.",
            "  2. Switch the light of the kitchen: the device's own telemetry confirms it.",
            f"  3. Add a room: device “Demo {LEFT_OVER}”, claim code {LABELS[LEFT_OVER]}.",
            "  4. Log in as Bob in a private window: he sees nothing of Alice's.",
            "",
            f"Below it    {gateway.base}/docs (the gateway), logs in {LOGS}/",
            "Ctrl-C ends it and forgets everything.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
