"""The gate against breaking changes: today's document passes it, and it knows what breaks callers."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import compatibility
from scripts.compatibility import DOCUMENT, RELEASED, CannotCompare, compare, main

# The first test of this file builds the tool where there is none.
pytestmark = [
    pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed (1.26 or later: go.dev/dl)"),
    pytest.mark.timeout(400),
]

Document = dict[str, Any]
Change = Callable[[Document], Any]
DEVICES = "/api/v1/tb/devices"
LATEST = f"{DEVICES}/{{device_id}}/telemetry/latest"
TODAY: Document = json.loads(DOCUMENT.read_text("utf-8"))
# Those that are changed below, which is a third of the time.
TODAY["paths"] = {
    path: TODAY["paths"][path]
    for path in (DEVICES, LATEST, f"{DEVICES}/{{device_id}}/light", f"{DEVICES}/{{device_id}}/rpc/twoway")
}


def operation(document: Document, path: str = DEVICES, method: str = "get") -> Document:
    found: Document = document["paths"][path][method]
    return found


def parameter(document: Document, name: str) -> Document:
    found: Document = next(each for each in operation(document)["parameters"] if each.get("name") == name)
    return found


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def field(document: Document, name: str, of: str) -> Document:
    found: Document = schema(document, of)["properties"][name]
    return found


def options(document: Document, name: str) -> Document:
    """Return the alternative to null."""
    found: Document = parameter(document, name)["schema"]["anyOf"][0]
    return found


def new_parameter(*, required: bool) -> Document:
    return {"name": "new", "in": "query", "required": required, "schema": {"type": "string"}}


def remove_parameter(document: Document, name: str) -> None:
    operation(document)["parameters"].remove(parameter(document, name))


def remove_field(document: Document, name: str, of: str) -> None:
    del schema(document, of)["properties"][name]
    if name in schema(document, of).get("required", ()):
        schema(document, of)["required"].remove(name)


def deprecate(marked: Document, sunset: str) -> None:
    marked.update({"deprecated": True, "x-sunset": sunset})


BREAKING: dict[str, Change] = {
    "path removed": lambda new: new["paths"].pop(LATEST),
    "method removed": lambda new: new["paths"][DEVICES].pop("post"),
    "required field of an answer removed": lambda new: remove_field(new, "has_next", "Pagination"),
    "optional field of an answer removed": lambda new: remove_field(new, "device_id", "LatestAnswer"),
    "field of an answer deep down removed": lambda new: remove_field(new, "ts", "Point"),
    "field of an error removed": lambda new: remove_field(new, "error_code", "ErrorBody"),
    "type of an answer's field changed": lambda new: field(new, "page", "Pagination").update(
        type="string", format="date"
    ),
    "field of an answer may be null": lambda new: field(new, "page", "Pagination").update(
        type=["integer", "null"]
    ),
    "status of an answer removed": lambda new: operation(new, DEVICES, "post")["responses"].pop("201"),
    "media type of an answer removed": lambda new: operation(new)["responses"]["200"].update(content={}),
    "header of an answer removed": lambda new: operation(new)["responses"]["200"]["headers"].pop("ETag"),
    "parameter required": lambda new: operation(new)["parameters"].append(new_parameter(required=True)),
    "optional parameter became required": lambda new: parameter(new, "page").update(required=True),
    "parameter removed": lambda new: remove_parameter(new, "text_search"),
    "type of a parameter changed": lambda new: parameter(new, "page")["schema"].update(type="boolean"),
    "largest value of a parameter lowered": lambda new: parameter(new, "page_size")["schema"].update(
        maximum=100
    ),
    "value of a parameter removed": lambda new: options(new, "sort_by")["enum"].remove("label"),
    "body needs another field": lambda new: (
        schema(new, "EntityCreate")["properties"].update(colour={"type": "string"}),
        schema(new, "EntityCreate")["required"].append("colour"),
    ),
    "field of a body became required": lambda new: schema(new, "EntityCreate")["required"].append("label"),
    "field of a body removed": lambda new: remove_field(new, "label", "EntityCreate"),
    "value of a body's field removed": lambda new: field(new, "state", "LightRequest")["enum"].remove("off"),
    "type of a body's field changed": lambda new: field(new, "method", "RpcRequest").update(type="integer"),
    "longest text of a body's field shortened": lambda new: field(new, "name", "EntityCreate").update(
        maxLength=10
    ),
    "operation renamed": lambda new: operation(new).update(operationId="find_devices"),
    "operation moved to another tag": lambda new: operation(new).update(tags=["things"]),
    "answer may have another value": lambda new: field(new, "outcome", "RpcAnswer")["enum"].append("lost"),
}
ADDITIVE: dict[str, Change] = {
    "nothing": lambda new: None,
    "path added": lambda new: new["paths"].update(
        {"/api/v1/tb/things": {"get": {**operation(new), "operationId": "list_things"}}}
    ),
    "method added": lambda new: new["paths"][LATEST].update(
        put={**operation(new, LATEST), "operationId": "put_latest"}
    ),
    "optional parameter added": lambda new: operation(new)["parameters"].append(
        new_parameter(required=False)
    ),
    "value of a parameter added": lambda new: options(new, "sort_by")["enum"].append("colour"),
    "largest value of a parameter raised": lambda new: parameter(new, "page_size")["schema"].update(
        maximum=2000
    ),
    "optional field of a body added": lambda new: schema(new, "EntityCreate")["properties"].update(
        colour={"type": "string"}
    ),
    "field of an answer added": lambda new: (
        schema(new, "Pagination")["properties"].update(cursor={"type": "string"}),
        schema(new, "Pagination")["required"].append("cursor"),
    ),
    "media type of an answer added": lambda new: operation(new)["responses"]["200"]["content"].update(
        {"text/csv": {"schema": {"type": "string"}}}
    ),
    "error answer added": lambda new: operation(new)["responses"].update(
        {"410": {"description": "It is gone."}}
    ),
    "words changed": lambda new: operation(new).update(description="Another text.", summary="Another"),
    "operation deprecated": lambda new: deprecate(operation(new), "2999-01-01"),
    "parameter deprecated": lambda new: deprecate(parameter(new, "text_search"), "2999-01-01"),
}


def found_between(before: Change, after: Change, folder: Path) -> str:
    """Return what the gate says about the way from one document to the next."""
    documents = []
    for name, change in (("before", before), ("after", after)):
        document = copy.deepcopy(documents[0] if documents else TODAY)
        change(document)
        documents.append(document)
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    return compare(folder / "before.json", folder / "after.json")


def test_todays_document_breaks_nothing_of_the_last_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_callers_is_found(name: str, tmp_path: Path) -> None:
    assert found_between(lambda new: None, BREAKING[name], tmp_path)


@pytest.mark.parametrize("name", ADDITIVE)
def test_what_only_adds_passes(name: str, tmp_path: Path) -> None:
    assert not found_between(lambda new: None, ADDITIVE[name], tmp_path)


@pytest.mark.parametrize(("sunset", "is_broken"), [("2020-01-01", False), ("2999-01-01", True)])
def test_what_was_deprecated_may_go_after_its_sunset(tmp_path: Path, sunset: str, is_broken: bool) -> None:
    def forget_path(new: Document) -> None:
        del new["paths"][DEVICES]["post"]

    def forget_parameter(new: Document) -> None:
        remove_parameter(new, "text_search")

    for before, after in (
        (lambda new: deprecate(operation(new, DEVICES, "post"), sunset), forget_path),
        (lambda new: deprecate(parameter(new, "text_search"), sunset), forget_parameter),
    ):
        assert bool(found_between(before, after, tmp_path)) is is_broken


def test_a_break_fails_the_command_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = copy.deepcopy(TODAY)
    remove_field(broken, "has_next", "Pagination")
    document = tmp_path / "document.json"
    document.write_text(json.dumps(broken), "utf-8")
    monkeypatch.setattr(compatibility, "DOCUMENT", document)
    assert main([]) == 1
    told = capsys.readouterr().out
    assert "pagination/has_next" in told
    assert "❌ This would break callers of the last release" in told


def test_a_document_that_cannot_be_read_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", "utf-8")
    with pytest.raises(CannotCompare, match="cannot compare"):
        compare(RELEASED, tmp_path / "broken.json")


def test_a_machine_without_go_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 2
    assert "❌ Go is needed" in capsys.readouterr().err
