"""Checks that what the gateway answers is what its OpenAPI document promises."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

PATH = Path(__file__).resolve().parent.parent / "tb_api_sdk_openapi.json"
# The document's references, made absolute, so that a schema taken out of it still finds its parts.
DOCUMENT: dict[str, Any] = json.loads(PATH.read_text().replace('"#/components', '"urn:document#/components'))
RESOURCE = Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
REGISTRY: Registry[Any] = Registry().with_resource("urn:document", RESOURCE)
TEMPLATES = [
    (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), item)
    # Fixed paths first: `/telemetry/latest` is no `{id}`.
    for path, item in sorted(DOCUMENT["paths"].items(), key=lambda pair: pair[0].count("{"))
]


def validate(instance: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError when the instance does not fit."""
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(instance)


def answer_of(method: str, path: str, status: int) -> dict[str, Any]:
    """Return what the document says about an answer; KeyError when it says nothing."""
    item = next(item for template, item in TEMPLATES if template.fullmatch(path))
    answer: dict[str, Any] = item[method.lower()]["responses"][str(status)]
    if "$ref" in answer:
        return dict(DOCUMENT["components"]["responses"][answer["$ref"].rsplit("/", 1)[-1]])
    return answer


async def check_answer(response: httpx.Response) -> None:
    """An httpx response hook: every JSON answer of a documented path must fit the document."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    answer = answer_of(request.method, path, response.status_code)
    if response.headers["content-type"] == "application/json":
        await response.aread()
        validate(response.json(), answer["content"]["application/json"]["schema"])
