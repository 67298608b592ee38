"""The TypeScript SDK, compiled, packed, installed and run."""

from pathlib import Path

import pytest

from scripts.sdks import typescript
from scripts.sdks.language import missing, run
from scripts.sdks.run_tests import check
from tests.sdks.faulty_gateway import faulty_gateway

#: The first test to run compiles the SDK.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SDK has been compiled and installed, and has passed the scenario."""
    trial = typescript.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*typescript.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("typescript")
    check(typescript.LANGUAGE, trial, folder)
    return folder


def test_the_typescript_sdk_passes_the_scenario_and_brings_its_types(folder: Path) -> None:
    installed = folder / "work/node_modules/thingsboard-gateway-client"
    assert {file.name for file in installed.iterdir()} == {"README.md", "dist", "package.json"}
    assert "export declare class Gateway {" in (installed / "dist/gateway.d.ts").read_text("utf-8")


def test_the_typescript_sdk_tells_faults_apart_and_goes_on_where_a_stream_broke(folder: Path) -> None:
    code = Path(__file__).with_name("faults.ts").read_text("utf-8")
    with faulty_gateway() as (address, server):
        command = [*typescript.sample(folder / "work", code), address]
        told = run(command, folder / "work").splitlines()
    assert told == [
        "proxy: GatewayError 502 ",
        "silent: TimeoutError",
        "patient: boiler",
        "export: TypeError",
        "stream: telemetry 10 1; telemetry 20 2; gone undefined undefined",
        "refused: GatewayError 403 AUTHORIZATION_FAILED",
        "nobody: TypeError",
        "ended: AbortError",
    ]
    # The half event was not taken for one; the refused attempt in between lost nothing.
    assert server.last_event_ids["breaking"] == [None, "1", "1", "2"]
