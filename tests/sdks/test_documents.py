"""The document as SDK generators get it, and the commands around it."""

import re
import sys
from pathlib import Path

import pytest

from scripts.sdks import document as documents
from scripts.sdks import generate, openapi_generator, run_tests
from scripts.sdks.language import Language, StepFailed, Tool, fence, missing, run
from scripts.sdks.languages import LANGUAGES

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = documents.load()
PAGE = (ROOT / "docs/sdks.md").read_text()


def test_streams_are_left_out_and_nothing_else() -> None:
    text = documents.DOCUMENT.read_text()
    ids = set(re.findall(r'"operationId": "(\w+)"', text))
    left_out = ids - set(documents.operations(DOCUMENT))
    assert left_out == {"stream_telemetry", "stream_telemetry_of_devices", "stream_rpc_events"}


def test_no_two_methods_of_a_resource_share_a_name() -> None:
    names = documents.method_names(DOCUMENT)
    tags = {name: operation["tags"][0] for name, operation in documents.operations(DOCUMENT).items()}
    assert len({(tags[name], method) for name, method in names.items()}) == len(names)


@pytest.mark.parametrize(
    ("operation_id", "tag", "name"),
    [
        ("list_devices", "devices", "list"),
        ("get_device_credentials", "devices", "get_credentials"),
        ("upload_telemetry", "telemetry", "upload"),
        ("upload_asset_telemetry", "telemetry", "upload_for_asset"),
        ("query_telemetry_of_devices", "telemetry", "query_for_devices"),
        ("list_device_alarms", "alarms", "list_for_device"),
        ("send_twoway_rpc", "rpc", "send_twoway"),
        ("get_whoami", "keys", "get_whoami"),
    ],
)
def test_methods_do_not_repeat_their_resource(operation_id: str, tag: str, name: str) -> None:
    assert documents.method_name(operation_id, tag) == name


def test_a_call_has_no_parameter_that_changes_the_type_of_its_answer() -> None:
    operations = documents.operations(DOCUMENT)
    history = {parameter["name"] for parameter in operations["get_telemetry"]["parameters"]}
    assert history == {"device_id", "keys", "start_ts", "end_ts"}
    assert "format" in {parameter["name"] for parameter in operations["export_telemetry"]["parameters"]}
    assert not any("304" in operation["responses"] for operation in operations.values())


def test_an_operation_that_a_generator_leaves_out_is_named(tmp_path: Path) -> None:
    def leave_out(_package: Path) -> set[str]:
        return set(documents.operations(DOCUMENT)) - {"list_devices"}

    language = Language("none", "No", tools=(), generate=lambda _target: None, operations=leave_out)
    with pytest.raises(StepFailed, match=r"The No SDK lacks list_devices\."):
        generate.generate(language, tmp_path / "package")


def test_a_missing_tool_is_named_with_its_package() -> None:
    assert missing([Tool(sys.executable, "python3")]) == ""
    assert missing([Tool("no-such-tool", "no-such-package")]) == (
        "no-such-tool not found; on Debian and Ubuntu: apt-get install no-such-package"
    )


def test_a_failed_step_shows_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"failed \(3\):\nit broke"):
        run([sys.executable, "-c", "print('it broke'); raise SystemExit(3)"], tmp_path)


def test_another_jar_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi_generator, "CACHE", tmp_path)
    jar = tmp_path / f"openapi-generator-cli-{openapi_generator.VERSION}.jar"
    jar.write_bytes(b"something else")
    with pytest.raises(StepFailed, match="SHA-256"):
        openapi_generator.jar()
    assert not jar.exists()


@pytest.mark.parametrize("module", [generate, run_tests])
def test_an_unknown_language_is_refused(
    module: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "cobol"])
    assert module.main() != 0  # type: ignore[attr-defined]
    assert "'cobol' is none of: python, typescript" in capsys.readouterr().err


def test_the_page_tells_the_scenario_as_it_runs() -> None:
    table = PAGE.partition("## The scenario")[2]
    assert tuple(re.findall(r"^\| ([a-z ]+) \|", table, re.MULTILINE))[1:] == run_tests.STEPS


@pytest.mark.parametrize("name", [language.name for language in LANGUAGES if language.trial])
def test_the_first_call_of_the_page_is_the_example_that_runs(name: str) -> None:
    readme = (ROOT / "scripts/sdks" / name / "README.md").read_text()
    assert fence(PAGE, name) == fence(readme, name)
