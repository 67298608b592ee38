"""The interactive documentation: Swagger UI and Redoc, served from here, without inline scripts."""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

import orjson
from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from app.api.route import GatewayRoute

router = APIRouter(route_class=GatewayRoute, include_in_schema=False)

#: Where the package `fastapi-offline` keeps Swagger UI and Redoc.
ASSETS = files("fastapi_offline") / "static"
#: Both pages style their elements inline and Redoc searches in a worker; no script runs but those files.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src blob:; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY}

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ThingsBoard gateway</title><link rel="icon" href="/docs/favicon.png">{styles}</head>
<body style="margin:0"><div id="page"></div>{scripts}</body>
</html>
"""
SWAGGER_PAGE = PAGE.format(
    styles='<link rel="stylesheet" href="/docs/swagger-ui.css">',
    scripts='<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>',
)
SWAGGER_START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis]
});
"""
REDOC_PAGE = PAGE.format(
    styles="",
    scripts='<script src="/redoc/redoc.standalone.js"></script><script src="/redoc/start.js"></script>',
)
REDOC_START = 'Redoc.init("/openapi.json", {}, document.getElementById("page"));\n'

#: (content, media type) of what is written here; the rest are the package's files.
PAGES = {
    "/docs": (SWAGGER_PAGE, "text/html"),
    "/docs/start.js": (SWAGGER_START, "text/javascript"),
    "/redoc": (REDOC_PAGE, "text/html"),
    "/redoc/start.js": (REDOC_START, "text/javascript"),
}
FILES = {
    "/docs/swagger-ui.css": "swagger-ui.css",
    "/docs/swagger-ui-bundle.js": "swagger-ui-bundle.js",
    "/docs/favicon.png": "favicon.png",
}
REDOC = "/redoc/redoc.standalone.js"
#: Redoc signs its pages with a picture from its maker's server: nobody there needs to know who reads here.
REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
PATHS = frozenset(PAGES) | frozenset(FILES) | {REDOC, "/openapi.json"}
CACHED = {"Cache-Control": "public, max-age=86400"}


@router.get("/openapi.json")
async def get_openapi_document(request: Request) -> Response:
    """Return the document that describes this API."""
    state = request.app.state
    if not hasattr(state, "openapi_document"):
        # Once: strangers may ask for it, and each slow reader would hold a copy of its own.
        state.openapi_document = orjson.dumps(request.app.openapi())
    return Response(state.openapi_document, media_type="application/json")


def _page(content: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def get_page() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return get_page


def _file(name: str) -> Callable[[], Awaitable[Response]]:
    async def get_file() -> Response:
        return FileResponse(str(ASSETS / name), headers=CACHED)

    return get_file


@router.get(REDOC)
def get_redoc() -> Response:
    """Return Redoc's script."""
    return Response(_redoc_script(), media_type="text/javascript", headers=CACHED)


@cache
def _redoc_script() -> bytes:
    """Return the script with our own picture in place of its maker's: one copy for all who read it."""
    return (ASSETS / "redoc.standalone.js").read_bytes().replace(REDOC_LOGO, b"/docs/favicon.png")


for _path, (_content, _media_type) in PAGES.items():
    router.add_api_route(_path, _page(_content, _media_type))
for _path, _name in FILES.items():
    router.add_api_route(_path, _file(_name))
