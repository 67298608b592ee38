"""The Java SDK: every operation is there, the scenario of all SDKs passes, and faults are what they are."""

from pathlib import Path

import pytest

from scripts.sdks import document as documents
from scripts.sdks import java
from scripts.sdks.language import missing, run
from scripts.sdks.run_tests import check
from tests.sdks.faulty_gateway import faulty_gateway

#: The first test to run compiles the SDK.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SDK has been generated and compiled, and has passed the scenario."""
    trial = java.LANGUAGE.trial
    assert trial is not None
    if lacking := missing((*java.LANGUAGE.tools, *trial.tools)):
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("java")
    check(java.LANGUAGE, trial, folder)
    return folder


def test_the_java_sdk_passes_the_scenario_and_has_every_operation(folder: Path) -> None:
    assert set(documents.operations(documents.load())) == java.operations(folder / "package")


def test_the_java_sdk_is_packed_with_its_sources(folder: Path) -> None:
    jars = {file.name for file in (folder / "package" / "target").glob("*.jar")}
    name = f"{java.ARTIFACT}-{documents.version()}"
    assert {f"{name}.jar", f"{name}-sources.jar"} == jars


def test_the_java_sdk_tells_faults_apart_and_goes_on_where_a_stream_broke(folder: Path) -> None:
    with faulty_gateway() as (address, server):
        command = ["java", *java.CLASS_PATH, Path(__file__).with_name("Faults.java"), address]
        told = run(command, folder / "work").splitlines()
    assert told == [
        "proxy: ApiException 502 null",
        "garbled: UncheckedIOException JsonEOFException",
        "silent: UncheckedIOException HttpTimeoutException",
        "patient: boiler",
        "export: IOException",
        "stream: TELEMETRY 10 1; TELEMETRY 20 2; GONE null null; ",
        "burst: 100",
        "refused: ApiException 403 AUTHORIZATION_FAILED",
        "nobody: UncheckedIOException ConnectException",
        "closed: false",
        "still interrupted: UncheckedIOException InterruptedIOException",
    ]
    # The half event was not taken for one; the refused attempt in between lost nothing.
    assert server.last_event_ids["breaking"] == [None, "1", "1", "2"]
    assert server.last_event_ids["burst"] == [None, "100"]


def test_a_description_becomes_javadoc() -> None:
    markdown = 'The `{"a":1}` of <all>\nkeys.\n\nNeeds `x<y`.'
    assert java.javadoc(markdown) == 'The {@code {"a":1}} of &lt;all&gt; keys. <p>Needs {@code x<y}.'
