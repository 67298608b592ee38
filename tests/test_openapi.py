"""The OpenAPI document: valid, complete, fresh, and good for SDK generators."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate as validate_document

from app.keys.entries import SCOPES
from tests import documented
from tests.documented import validate

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT: dict[str, Any] = json.loads((ROOT / "tb_api_sdk_openapi.json").read_text())
SUCCESS = ("200", "201", "202", "207")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


OPERATIONS = {operation["operationId"]: (path, method, operation) for path, method, operation in operations()}
each_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS.values(), ids=OPERATIONS)


def test_the_committed_document_is_fresh() -> None:
    check = [sys.executable, str(ROOT / "scripts/generate_openapi_schema.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate_document(DOCUMENT)


def test_the_python_sdk_generator_makes_every_operation_without_a_warning(tmp_path: Path) -> None:
    """A second validator, and the one that matters: it drops operations that it does not understand."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "post_hooks: []\ncontent_type_overrides:\n"
        "  application/x-ndjson: application/octet-stream\n  text/csv: application/octet-stream\n"
        "  text/event-stream: application/octet-stream\n"
    )
    program = Path(sys.executable).with_name("openapi-python-client")
    target = tmp_path / "sdk"
    done = subprocess.run(
        [
            *(program, "generate", "--path", ROOT / "tb_api_sdk_openapi.json", "--config", config),
            *("--output-path", target, "--fail-on-warning"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = {file.stem for file in target.glob("*/api/*/*.py")} - {"__init__"}
    assert made == set(OPERATIONS)


def test_operation_ids_are_unique_verb_noun() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    verbs = {"get", "list", "create", "update", "delete", "upload", "export", "query", "count"}
    verbs |= {"acknowledge", "clear", "send", "set", "stream"}
    assert {each.split("_")[0] for each in ids} <= verbs


@each_operation
def test_an_operation_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert len(operation["description"]) > 20
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}


@each_operation
def test_an_operation_states_its_security_and_errors(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    if not path.startswith("/api/v1/tb"):
        assert operation["security"] == []
        return
    assert operation["security"] == [{"ApiKey": []}]
    assert set(operation.get("x-required-scopes", [])) <= SCOPES
    assert {"400", "401", "403", "422", "429", "500", "502", "503", "504"} <= set(operation["responses"])
    if "{" in path:
        assert "404" in operation["responses"]


def check_example(content: dict[str, Any], schema: dict[str, Any]) -> None:
    """Validate an example; references are resolved within the document."""
    validate(
        content["example"],
        json.loads(json.dumps(schema).replace('"#/components', '"urn:document#/components')),
    )


@each_operation
def test_bodies_and_answers_have_valid_examples(path: str, method: str, operation: dict[str, Any]) -> None:
    bodies = operation.get("requestBody", {}).get("content", {})
    answers = [
        (media_type, content)
        for status, response in operation["responses"].items()
        if status in SUCCESS
        for media_type, content in response["content"].items()
    ]
    assert answers
    for media_type, content in [*bodies.items(), *answers]:
        assert content.get("example") is not None, f"{media_type} has no example"
        if media_type == "application/json":
            assert content["schema"], "the answer has no schema"
            check_example(content, content["schema"])


def test_error_answers_have_valid_examples() -> None:
    for response in DOCUMENT["components"]["responses"].values():
        content = response["content"]["application/json"]
        check_example(content, content["schema"])


def test_every_integer_is_64_bits() -> None:
    def integers(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if node.get("type") == "integer":
                yield node
            for value in node.values():
                yield from integers(value)
        elif isinstance(node, list):
            for value in node:
                yield from integers(value)

    assert {node["format"] for node in integers(DOCUMENT["components"])} == {"int64"}
    assert {node["format"] for node in integers(DOCUMENT["paths"])} == {"int64"}


def test_nothing_of_this_machine_is_in_it() -> None:
    text = json.dumps(DOCUMENT)
    assert "/home/" not in text
    assert "/root/" not in text


LINKS = {
    f"{name} {status} {link['operationId']}": (answer["content"]["application/json"], link)
    for name, (_, _, operation) in OPERATIONS.items()
    for status, answer in operation["responses"].items()
    for link in answer.get("links", {}).values()
}


@pytest.mark.parametrize(("content", "link"), LINKS.values(), ids=LINKS)
def test_a_link_leads_from_an_answer_to_what_an_operation_takes(
    content: dict[str, Any], link: dict[str, Any]
) -> None:
    taken = {each.get("name") for each in OPERATIONS[link["operationId"]][2]["parameters"]}
    assert set(link["parameters"]) <= taken
    for expression in link["parameters"].values():
        value = content["example"]
        for part in expression.removeprefix("$response.body#/").split("/"):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert isinstance(value, str)


BODIES_WITH: dict[str, Callable[[Any], dict[str, Any]]] = {
    "upload_attributes": lambda value: {"a": value},
    "upload_telemetry": lambda value: {"a": [{"ts": 1_760_000_000_000, "value": value}]},
    "upload_bulk_telemetry": lambda value: {"d": {"a": [{"ts": 1_760_000_000_000, "value": value}]}},
}


@pytest.mark.parametrize("name", BODIES_WITH)
def test_null_is_no_value_of_what_is_written(name: str) -> None:
    """As the gateway refuses it, because ThingsBoard does (tests of attributes and uploads)."""
    # With references that `validate` finds.
    path, method, _ = OPERATIONS[name]
    schema = documented.DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    for value in (1, 1.5, "", False, {"a": None}, [None]):
        validate(BODIES_WITH[name](value), schema)
    with pytest.raises(jsonschema.ValidationError):
        validate(BODIES_WITH[name](None), schema)
