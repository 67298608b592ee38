"""Every operation of the document, called by schemathesis; `scripts/adversarial` starts it.

A gateway and a simulated ThingsBoard are started for it. Whatever the gateway answers has to be in its
document: the status, the content type, the body, the headers. `scripts/adversarial_hooks.py` has the checks
that are ours. The three streams are left out: they do not end.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench import KEY, start_gateway, start_thingsboard
from benchmarks.processes import (
    HOST,
    ROOT,
    BenchmarkFailed,
    Child,
    Children,
    end_on_signals,
    free_port,
    say,
)

DOCUMENT = ROOT / "tb_api_sdk_openapi.json"
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
#: Nor are these with faults: a ThingsBoard that acknowledges a deletion and does not carry it out, or answers
#: that what was just made is not the caller's, is believed.
NEEDS_TRUTH = ("use_after_free", "ensure_resource_availability", "stays_deleted")
#: Where an id of which kind is taken; two of three random cases name an object that exists.
TAKEN = {
    "path.device_id": "device",
    "path.asset_id": "asset",
    "path.alarm_id": "alarm",
    "path.root_id": "asset",
    "query.entity_id": "asset",
    "body.device_ids[*]": "device",
    "body.from.id": "asset",
    "body.to.id": "device",
}
#: The key is given as the document's security scheme: a header would come back where it is to be missing.
#: Chains follow the links of the document; those that schemathesis infers take the object that holds an id
#: for the id.
CONFIGURATION = f"""
[auth.openapi.ApiKey]
api_key = "{KEY}"

[phases.stateful]
max-steps = 60
inference.algorithms = []
generation.max-examples = 25
"""


def main() -> int:
    """Start both, call everything, end both; the exit code is schemathesis'."""
    given = arguments()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    say(f"🎲 --seed {seed}")
    end_on_signals()
    with Children() as children:
        port, file = free_port(), children.folder / "objects.json"
        module = "scripts.adversarial_thingsboard"
        simulator = start_thingsboard(children, port, module, str(port), str(file))
        # Every call comes from another address, or missing keys would soon be 429s.
        gateway = start_gateway(children, simulator, ready_path="/health/ready", trusted_proxies=HOST)
        objects: dict[str, str] = json.loads(file.read_bytes())
        document = prepared(objects)
        (children.folder / "document.json").write_text(json.dumps(document), "utf-8")
        (children.folder / "schemathesis.toml").write_text(configured(objects), "utf-8")
        command = schemathesis(children.folder, gateway, seed, given)
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
        never = operations_of(document) - told(gateway)
    if never:
        say(f"❌ never called: {', '.join(sorted(never))}")
    return code or bool(never)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/adversarial", description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", action="store_true", help="ThingsBoard fails in one call of three")
    parser.add_argument(
        "--seed", type=int, default=None, help="repeats a run; another one each time unless given"
    )
    parser.add_argument("--examples", type=int, default=100, help="random cases an operation (100)")
    parser.add_argument("--seconds", type=int, default=None, help="goes on with new cases for so long")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful", help="of schemathesis")
    return parser.parse_args()


def schemathesis(folder: Path, gateway: Child, seed: int, given: argparse.Namespace) -> list[str]:
    """Return its command line."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")]
    command += ["run", str(folder / "document.json"), "--url", f"http://{HOST}:{gateway.port}"]
    excluded = EXCLUDED_CHECKS + (NEEDS_TRUTH if given.faults else ())
    command += ["--exclude-path-regex", STREAMS, "--exclude-checks", ",".join(excluded)]
    command += ["--phases", given.phases, "--seed", str(seed), "--max-examples", str(given.examples)]
    command += ["--continue-on-failure", "--no-shrink", "--warnings", "off", "--request-timeout", "60"]
    if given.seconds is not None:
        command += ["--max-time", str(given.seconds)]
    return command


def configured(objects: Mapping[str, str]) -> str:
    """Return schemathesis' configuration."""
    dictionaries = "".join(f'[dictionaries.{kind}]\nvalues = ["{each}"]\n' for kind, each in objects.items())
    parameters = "".join(
        f'"{place}" = {{ dictionary = "{kind}", probability = 0.66 }}\n' for place, kind in TAKEN.items()
    )
    return f"{CONFIGURATION}\n{dictionaries}\n[parameters]\n{parameters}"


def prepared(objects: Mapping[str, str]) -> dict[str, Any]:
    """Return the committed document with examples that exist here: without, nearly all cases end at a 404.

    What is linked in words only (ids in bodies) is linked for schemathesis, too.
    """
    text = DOCUMENT.read_text("utf-8")
    for kind, known in EXAMPLES.items():
        text = text.replace(known, objects[kind])
    document: dict[str, Any] = json.loads(text)
    made = "$response.body#/data/id/id"
    ends = {
        "from": {"id": objects["asset"], "entity_type": "ASSET"},
        "to": {"id": made, "entity_type": "DEVICE"},
    }
    document["paths"]["/api/v1/tb/devices"]["post"]["responses"]["201"]["links"] |= {
        "create_relation": {"operationId": "create_relation", "requestBody": ends},
        **{
            name: {"operationId": name, "requestBody": {"device_ids": [made]}}
            for name in ("get_latest_telemetry_of_devices", "query_telemetry_of_devices")
        },
    }
    return document


def operations_of(document: Mapping[str, Any]) -> set[str]:
    """Return the operations that are to be called, as `GET /path`."""
    return {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item
        if not re.search(STREAMS, path)
    }


def told(gateway: Child) -> set[str]:
    """Say how the gateway answered; return the operations that it was asked for."""
    statuses, asked, granted = Counter[int](), set[str](), set[str]()
    for line in access_log(gateway.log):
        operation, status = f"{line['method']} {line['route']}", int(line["status"])
        statuses[status] += 1
        asked.add(operation)
        if 200 <= status < 300:  # noqa: PLR2004 - HTTP's successes
            granted.add(operation)
    say(f"📊 {', '.join(f'{number} x {status}' for status, number in sorted(statuses.items()))}")
    say(f"📊 {len(granted)} operations with a success")
    return asked


def access_log(file: Path) -> Iterator[dict[str, Any]]:
    """Return the lines about requests."""
    for line in file.read_text("utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            if fields.get("event") == "request":
                yield fields


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
