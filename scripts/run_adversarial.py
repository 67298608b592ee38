"""Every operation of the document, called by schemathesis; `scripts/adversarial` starts it.

A gateway and a simulated ThingsBoard are started for it. Whatever the gateway answers has to be in its
document: the status, the content type, the body, the headers. `scripts/adversarial_hooks.py` has the checks
that are ours. The four streams are left out: they do not end.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import (
    HOST,
    ROOT,
    BenchmarkFailed,
    Child,
    Children,
    fetch,
    free_port,
    wait_until_ready,
)

DOCUMENT = ROOT / "tb_api_sdk_openapi.json"
BASE = "/api/v1/tb"
KEY = "adversarial-key-of-this-run-0001"
HEADERS = {"X-API-Key": KEY}
LOGIN = ("tenant@thingsboard.org", "tenant")
#: Ids of the document's examples.
EXAMPLES = {
    "device": "065b2ed0-e62a-11f1-9212-1192b8cbba80",
    "asset": "069d19d0-e62a-11f1-9212-1192b8cbba80",
    "alarm": "ef4df485-11b3-45eb-91e8-b8e6899e55a6",
}
#: Those that never end.
STREAMS = "(stream|events)$"
#: Not asked, with the reason.
EXCLUDED_CHECKS = (
    # A refusal for what a value means (no such object, an interval without an aggregation) cannot be in a
    # schema. Our own check wants such an answer to name the field and what is wrong with it.
    "positive_data_acceptance",
    # Ours knows which 5xx are allowed, and when.
    "not_a_server_error",
)


def main() -> int:
    """Start both, call everything, end both; the exit code is schemathesis'."""
    parser = argparse.ArgumentParser(prog="scripts/adversarial", description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", action="store_true", help="ThingsBoard fails in one call of three")
    parser.add_argument(
        "--seed", type=int, default=None, help="repeats a run; another one each time unless given"
    )
    parser.add_argument("--examples", type=int, default=100, help="random cases an operation (100)")
    parser.add_argument("--seconds", type=int, default=None, help="goes on with new cases for so long")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful", help="of schemathesis")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    sys.stdout.write(f"🎲 --seed {seed}\n")
    sys.stdout.flush()
    # What was started is ended, too, when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Children() as children:
        simulator, gateway = start(children)
        objects = {"device": make(gateway, "/devices"), "asset": make(gateway, "/assets")}
        objects["alarm"] = raise_alarm(simulator, objects["device"])
        document = children.folder / "document.json"
        document.write_text(json.dumps(prepared(objects)), "utf-8")
        command = schemathesis(document, gateway, seed, given)
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "scripts.adversarial_hooks",
            "ADVERSARIAL_KEPT": ",".join(objects.values()),
            "ADVERSARIAL_SIMULATOR": str(simulator.port) if given.faults else "",
            "PYTHONPATH": str(ROOT),
        }
        code = subprocess.run(  # noqa: S603 - our own command
            command, check=False, env=environment, cwd=children.folder
        ).returncode
        if gateway.process.poll() is not None:
            raise BenchmarkFailed(f"the gateway ended:\n{gateway.tail()}")
        statuses = Counter(re.findall(rb'"status":(\d+)', gateway.log.read_bytes()))
    counted = ", ".join(f"{number} x {status.decode()}" for status, number in sorted(statuses.items()))
    sys.stdout.write(f"📊 {counted}\n")
    return code


def start(children: Children) -> tuple[Child, Child]:
    """Start a simulated ThingsBoard and a gateway before it, without limits that would hide answers."""
    port = free_port()
    simulator = children.start_module("simulator", "tb_simulator", "--port", str(port), port=port)
    wait_until_ready(simulator, "/__simulator/calls", {})
    port = free_port()
    environment = {
        "TB_HOST": f"http://{HOST}:{simulator.port}",
        "TB_USERNAME": LOGIN[0],
        "TB_PASSWORD": LOGIN[1],
        "API_KEY": KEY,
        "HOST": HOST,
        "PORT": str(port),
        "RATE_LIMIT_REQUESTS": "100000000",
        # Every call comes from another address, or missing keys would soon be 429s.
        "TRUSTED_PROXIES": HOST,
    }
    gateway = children.start_module("gateway", "app", "serve", port=port, environment=environment)
    wait_until_ready(gateway, "/health/ready", {})
    return simulator, gateway


def schemathesis(document: Path, gateway: Child, seed: int, given: argparse.Namespace) -> list[str]:
    """Return its command line."""
    # The key is given as the document's security scheme: a header would come back where it is to be missing.
    configuration = document.with_name("schemathesis.toml")
    configuration.write_text(f'[auth.openapi.ApiKey]\napi_key = "{KEY}"\n', "utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)]
    command += ["run", str(document), "--url", f"http://{HOST}:{gateway.port}"]
    command += ["--exclude-path-regex", STREAMS, "--exclude-checks", ",".join(EXCLUDED_CHECKS)]
    command += ["--phases", given.phases, "--seed", str(seed), "--max-examples", str(given.examples)]
    command += ["--continue-on-failure", "--no-shrink", "--warnings", "off", "--request-timeout", "60"]
    if given.seconds is not None:
        command += ["--max-time", str(given.seconds)]
    return command


def prepared(objects: Mapping[str, str]) -> dict[str, Any]:
    """Return the committed document with examples that exist here, and with links between operations.

    Without them nearly all cases would end at a 404.
    """
    text = DOCUMENT.read_text("utf-8")
    for kind, known in EXAMPLES.items():
        text = text.replace(known, objects[kind])
    document: dict[str, Any] = json.loads(text)
    paths = document["paths"]
    for path, parameter in (("/devices", "device_id"), ("/assets", "asset_id")):
        paths[BASE + path]["post"]["responses"]["201"]["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {parameter: "$response.body#/data/id/id"},
            }
            for place, item in paths.items()
            if f"{{{parameter}}}" in place and not re.search(STREAMS, place)
            for operation in item.values()
        }
    return document


def make(gateway: Child, path: str) -> str:
    """Make an object at the gateway and return its id."""
    body = json.dumps({"name": "Adversarial", "type": "default"}).encode()
    return str(posted(gateway, BASE + path, body, HEADERS)["data"]["id"]["id"])


def raise_alarm(simulator: Child, device: str) -> str:
    """Raise an alarm in ThingsBoard, which the gateway cannot, and return its id."""
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    token = posted(simulator, "/api/auth/login", json.dumps(login).encode(), {})["token"]
    alarm = {"type": "Hot", "severity": "MAJOR", "originator": {"entityType": "DEVICE", "id": device}}
    headers = {"X-Authorization": f"Bearer {token}"}
    return str(posted(simulator, "/api/alarm", json.dumps(alarm).encode(), headers)["id"]["id"])


def posted(child: Child, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
    """Return the JSON that answers a POST."""
    headers = {**headers, "Content-Type": "application/json"}
    status, content = fetch(child.port, path, headers, method="POST", body=body)
    if status not in {200, 201}:
        raise BenchmarkFailed(f"{child.name}: POST {path} is a {status}: {content[:200]!r}")
    return json.loads(content)


if __name__ == "__main__":
    sys.exit(main())
