"""The OpenAPI document: FastAPI's, with what SDK generators and readers need on top."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    return app.openapi_schema
