"""The OpenAPI document: FastAPI's, with what SDK generators and readers need on top.

Security, error answers, links, 64-bit integers and examples are added here, in one place, for every
operation.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import openapi_examples, openapi_rpc_examples
from app.api import deprecations
from app.api.etags import NOT_MODIFIED
from app.api.route import PREFIX, SCOPES_FIELD
from app.openapi_error_examples import ERROR_EXAMPLES
from app.openapi_links import add_links
from app.schemas.common import ErrorBody, RateLimitError
from app.schemas.live import LiveEventBody
from app.schemas.rpc import RpcEvent

Document = dict[str, Any]
EXAMPLES = openapi_examples.EXAMPLES | openapi_rpc_examples.EXAMPLES

TAGS = {
    "devices": "Devices and their types.",
    "assets": "Assets (buildings, floors, lines) and their types.",
    "telemetry": "Time series: newest values, whole history, aggregates, uploads.",
    "live": "Streams that do not end: leave them out of generated SDKs, and read them as server-sent events. "
    "The WebSocket `/api/v1/tb/ws` tells the same for devices that come and go.",
    "attributes": "Server, shared and client attributes.",
    "alarms": "Alarms: find, acknowledge, clear.",
    "rpc": "Commands to devices: sent and awaited, or stored until the device comes.",
    "relations": "Relations between entities, and the graph they make.",
    "keys": "What the API key of a request may do.",
    "health": "State of the gateway; needs no key.",
}
SECURITY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "X-API-Key",
    "description": "The key that the gateway's operator gave you. It never belongs in a URL.",
}
DESCRIPTION = """One key-protected HTTP API in front of ThingsBoard: typed values, the whole history, many
devices in one call, and errors that say what to do.

* **Ids** are UUIDs, or `name:` followed by the exact name.
* **Times** are ms since the epoch, or ISO 8601. Ranges are `[start_ts, end_ts)`: the end is exclusive.
* **Errors** have one shape; with `Accept: application/problem+json` it is RFC 9457.
* **How long you wait** may be said with every request: `X-Request-Timeout: 2.5`, in seconds (300 at most).
  It counts until the answer begins. When it is over, that is a 504 if ThingsBoard used it up, a 503 if the
  gateway's queue did. Give it to your client as a header of every request.
* **Unknown and repeated query parameters** are refused with a 422 that names them.
"""
ERROR_DESCRIPTIONS = {
    400: "The request makes no sense: `details` says which field and why.",
    401: "No API key, or none that is known.",
    403: "The key lacks a scope, or the gateway's ThingsBoard account lacks the right.",
    404: "There is no such thing, or not for this key.",
    409: "It exists already, somebody else changed it meanwhile, or the device is offline.",
    413: "The body is too large.",
    415: "The body is in a format that this operation does not read.",
    422: "The request does not fit the schema: `details` says which fields and why.",
    429: "A rate limit is used up, the gateway's or ThingsBoard's: wait for `Retry-After` seconds.",
    500: "The gateway failed.",
    502: "ThingsBoard failed, or answered what nobody can read.",
    503: "ThingsBoard cannot be reached, or the gateway is busy: wait for `Retry-After` seconds.",
    504: "ThingsBoard did not answer in time.",
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "`ETag` of the answer that the caller has: the same again is a 304 without a body.",
    "schema": {"type": "string"},
}
ETAG = {
    "description": "Weak tag of the data and the page, whatever the `timestamp`; send it as `If-None-Match`.",
    "schema": {"type": "string"},
}
ALWAYS = (400, 401, 403, 422, 429, 500, 502, 503, 504)


def document_of(app: FastAPI) -> Document:
    """Return the document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = build(app)
    return app.openapi_schema


def build(app: FastAPI) -> Document:
    """Make the document from the routes."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        servers=[{"url": "/", "description": "This gateway"}],
    )
    components = document["components"]
    components["securitySchemes"] = {"ApiKey": SECURITY_SCHEME}
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"] |= _schemas_of(ErrorBody, RateLimitError, LiveEventBody, RpcEvent)
    components["parameters"] = {"IfNoneMatch": IF_NONE_MATCH}
    components["headers"] = {"ETag": ETAG}
    components["responses"] = {f"Error{status}": _error_response(status) for status in ERROR_DESCRIPTIONS}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content["schema"] = name_schemas(content["schema"], components["schemas"])
            _complete(operation, path, method)
    add_links(document["paths"])
    mark_64_bits(document)
    return document


def name_schemas(node: Any, named: dict[str, Any]) -> Any:
    """Move inline schemas with a title among the named ones: generators call others `requestBody`."""
    if isinstance(node, list):
        return [name_schemas(each, named) for each in node]
    if not isinstance(node, dict):
        return node
    schema = {key: name_schemas(value, named) for key, value in node.items()}
    if "title" not in schema or not {"properties", "additionalProperties", "anyOf"} & set(schema):
        return schema
    named[schema["title"]] = schema
    return {"$ref": f"#/components/schemas/{schema['title']}"}


def _schemas_of(*models: type[BaseModel]) -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    return dict(definitions["$defs"])


def _error_response(status: int) -> dict[str, Any]:
    schema = "RateLimitError" if status == 429 else "ErrorBody"  # noqa: PLR2004 - the HTTP status itself
    response: dict[str, Any] = {
        "description": ERROR_DESCRIPTIONS[status],
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "example": ERROR_EXAMPLES[status],
            }
        },
    }
    if status in {429, 503}:
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait, at least 1.", "schema": {"type": "integer"}}
        }
    return response


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    """Add security, error answers and examples to one operation."""
    responses = operation["responses"]
    responses.pop("422", None)
    if path.startswith(PREFIX):
        operation["security"] = [{"ApiKey": []}]
        scopes = operation.get(SCOPES_FIELD)
        if scopes:
            operation["description"] += f"\n\nNeeds the scope {' and '.join(f'`{each}`' for each in scopes)}."
        for status in _statuses(operation, path, method):
            responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    else:
        operation["security"] = []
        responses["500"] = {"$ref": "#/components/responses/Error500"}
        if operation.get("parameters"):
            responses["422"] = {"$ref": "#/components/responses/Error422"}
    if str(NOT_MODIFIED) in responses:
        _add_revalidation(operation)
    # SDKs take arguments in this order: as the path has them, then the others as they were.
    operation.get("parameters", []).sort(key=lambda each: path.find(f"{{{each.get('name')}}}") % len(path))
    for deprecation in operation.pop(deprecations.FIELD, ()):
        _mark_deprecated(operation, deprecation)
    operation["responses"] = dict(sorted(responses.items()))
    _add_examples(operation)


def _mark_deprecated(operation: dict[str, Any], deprecation: dict[str, str]) -> None:
    """Mark the operation or its parameter, and say what to use."""
    marked = operation
    if "parameter" in deprecation:
        marked = next(each for each in operation["parameters"] if each["name"] == deprecation["parameter"])
    marked["deprecated"] = True
    marked[deprecations.SUNSET_FIELD] = deprecation["sunset"]
    marked["description"] = (
        f"{marked.get('description', '')}\n\nDeprecated since {deprecation['since']}, may be gone from "
        f"{deprecation['sunset']} on. {deprecation['instead']}"
    ).lstrip()


def _add_revalidation(operation: dict[str, Any]) -> None:
    operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/IfNoneMatch"})
    operation["responses"][str(NOT_MODIFIED)] = {"description": "The caller has this answer already."}
    for status in ("200", str(NOT_MODIFIED)):
        operation["responses"][status]["headers"] = {"ETag": {"$ref": "#/components/headers/ETag"}}


def _statuses(operation: dict[str, Any], path: str, method: str) -> list[int]:
    statuses = set(ALWAYS)
    if "{" in path or "relations" in path or path.endswith("/stream"):
        statuses.add(404)
    if "requestBody" in operation:
        statuses |= {413, 415}
    if method in {"post", "patch"} and path.rsplit("/", 1)[-1] in {"devices", "assets", "ack", "clear"}:
        statuses.add(409)
    if method == "patch" or (method == "post" and "rpc:send" in operation.get(SCOPES_FIELD, ())):
        statuses.add(409)
    return sorted(statuses)


def _add_examples(operation: dict[str, Any]) -> None:
    """Add the examples of `openapi_examples.py`; a test finds operations that have none."""
    example = EXAMPLES.get(operation["operationId"], {})
    if "requestBody" in operation and "request" in example:
        for media_type, content in operation["requestBody"]["content"].items():
            content["example"] = example["request"].get(
                media_type, example["request"].get("application/json")
            )
    for status, response in operation["responses"].items():
        for media_type, content in response.get("content", {}).items():
            if status.startswith("2") and "response" in example:
                # One example is good for all successes, unless one of them has its own.
                content["example"] = example.get(status, example["response"]).get(media_type)


def mark_64_bits(node: Any) -> None:
    """Give every integer `format: int64`: without it Java and C# SDKs read 32 bits and fail on times."""
    if isinstance(node, dict):
        if node.get("type") == "integer":
            node.setdefault("format", "int64")
        for key, value in node.items():
            if key != "example":
                mark_64_bits(value)
    elif isinstance(node, list):
        for value in node:
            mark_64_bits(value)
