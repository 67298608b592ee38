"""The OpenAPI document as SDK generators need it."""

import json
from pathlib import Path
from typing import Any

from scripts.sdks.language import SOURCES

DOCUMENT = SOURCES.parent.parent / "tb_api_sdk_openapi.json"
STREAM = "text/event-stream"
#: Of `GET .../telemetry`, which answers with files, too; `export_telemetry` is for them.
FILE_PARAMETERS = ("format", "cursor", "layout", "raw")
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def load() -> dict[str, Any]:
    """Return the document as all generators need it.

    Streams are left out: as calls they would never return. The hand-written layers have them.
    """
    document: dict[str, Any] = json.loads(DOCUMENT.read_text("utf-8"))
    for path, item in list(document["paths"].items()):
        for method in METHODS:
            if STREAM in item.get(method, {}).get("responses", {}).get("200", {}).get("content", {}):
                del item[method]
        if not item:
            del document["paths"][path]
    for operation in operations(document).values():
        operation["responses"].pop("304", None)
        parameters = operation.get("parameters", ())
        operation["parameters"] = [_parameter(each) for each in parameters if _is_for_calls(each, operation)]
    for parameter in operations(document)["delete_relation"]["parameters"]:
        # A body in place of all five is for people with a body at hand; a call would let them be forgotten.
        parameter["required"] = True
    document["components"].pop("parameters")
    used = {operation["tags"][0] for operation in operations(document).values()}
    document["tags"] = [tag for tag in document["tags"] if tag["name"] in used]
    return document


def _is_for_calls(parameter: dict[str, Any], operation: dict[str, Any]) -> bool:
    """Tell whether a call can use it: `If-None-Match` and `format` would change the type of its answer."""
    if "$ref" in parameter:
        return False
    is_json = "application/json" in operation["responses"].get("200", {}).get("content", {})
    return not (is_json and parameter["name"] in FILE_PARAMETERS)


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return an optional parameter without null, which no query can say."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return parameter
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**parameter, "schema": kinds[0] | rest}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations by id."""
    return {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    }


def version() -> str:
    """Return the version of the API, which is the version of its SDKs."""
    return str(load()["info"]["version"])


def method_names(document: dict[str, Any]) -> dict[str, str]:
    """Return the names of the methods by operation id, without what their resource says already.

    `upload_telemetry` becomes `telemetry.upload`, `upload_asset_telemetry` `telemetry.upload_for_asset`.
    """
    return {name: method_name(name, operation["tags"][0]) for name, operation in operations(document).items()}


def method_name(operation_id: str, tag: str) -> str:
    """Return the name of one method, in snake case; unique within its tag (a test holds it)."""
    own = {tag, tag.removesuffix("s"), f"{tag}s"}
    kept: list[str] = []
    owners: list[str] = []
    for word in operation_id.replace("_of_", "_for_").split("_"):
        if word in own and tag not in {"health", "keys"}:
            continue
        # Whose telemetry it is goes to the end, where the many-device operations have it, too.
        is_owner = word in {"asset", "device"} and tag not in {"devices", "assets"}
        (owners if is_owner else kept).append(word)
    return "_".join([*kept, *(word for owner in owners for word in ("for", owner))])


def camel_case(name: str) -> str:
    """Return a name as most languages write their methods."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def with_value_schema(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the document with another schema for the value of a point.

    The union of all JSON types compiles in Java and lies at run time: 25 becomes true, "12" becomes 12.0.
    """
    values = document["components"]["schemas"]["PointValue"]
    replaced = {key: values[key] for key in ("title", "description") if key in values} | schema
    schemas = {**document["components"]["schemas"], "PointValue": replaced}
    return {**document, "components": {**document["components"], "schemas": schemas}}


def with_single_types(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with one type a member, for languages that know no unions.

    What may be a number or a word has a wrapper class, which callers would have to make and unpack, and which
    misreads numbers in C#. One word has an enumeration of one value, or a class that does not exist.
    """
    schemas = {
        name: {**schema, "properties": {key: _single(each) for key, each in schema["properties"].items()}}
        if "properties" in schema
        else schema
        for name, schema in document["components"]["schemas"].items()
    }
    return {**document, "components": {**document["components"], "schemas": schemas}}


def _single(member: dict[str, Any]) -> dict[str, Any]:
    choices = [each for each in member.get("anyOf", [member]) if each.get("type") != "null"]
    described: dict[str, Any] = {key: member[key] for key in ("description", "default") if key in member}
    if len(choices) > 1:
        return described
    return {"type": "string", **described} if "const" in choices[0] else member


def write(document: dict[str, Any], folder: Path) -> Path:
    """Write a document for a generator and return where it is."""
    target = folder / "openapi.json"
    target.write_text(json.dumps(document), "utf-8")
    return target
