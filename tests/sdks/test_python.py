"""The Python SDK, built, installed and run."""

from pathlib import Path

import pytest

from scripts.sdks import document as documents
from scripts.sdks import gateway, python
from scripts.sdks.language import missing, run
from scripts.sdks.run_tests import check
from tests.sdks.faulty_gateway import faulty_gateway

#: The first test to run builds the SDK.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SDK has been built and installed, and has passed the scenario."""
    trial = python.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*python.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("python")
    check(python.LANGUAGE, trial, folder)
    return folder


def test_the_python_sdk_passes_the_scenario_and_is_packed_in_both_forms(folder: Path) -> None:
    name = f"thingsboard_gateway_client-{documents.version()}"
    built = {file.name for file in (folder / "work/dist").glob("thingsboard*")}
    assert built == {f"{name}-py3-none-any.whl", f"{name}.tar.gz"}


def test_the_python_sdk_tells_faults_apart_and_goes_on_where_a_stream_broke(folder: Path) -> None:
    code = Path(__file__).with_name("faults.py").read_text("utf-8")
    with faulty_gateway() as (address, server), gateway.running() as good:
        command = [*python.sample(folder / "work", code), address, good["GATEWAY_URL"], good["API_KEY"]]
        told = run(command, folder / "work").splitlines()
    heard = "telemetry 10 1; telemetry 20 2; gone None None"
    assert told == [
        "proxy: GatewayError 502 ",
        "silent: ReadTimeout",
        "patient: boiler",
        "export: RemoteProtocolError",
        f"stream: {heard}",
        "refused: GatewayError 403 AUTHORIZATION_FAILED",
        "nobody: ConnectError",
        f"asynchronous: 14; boiler; {heard}",
    ]
    # The half event was not taken for one; the refused attempt in between lost nothing.
    assert server.last_event_ids["breaking"] == 2 * [None, "1", "1", "2"]
