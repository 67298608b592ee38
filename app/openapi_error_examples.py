"""Examples of the OpenAPI document's error answers, by status. A test validates each against its schema."""

from typing import Any

from app.openapi_examples import NOW


def error(status: int, code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an error answer."""
    return {
        "status": status,
        "message": message,
        "error_code": code,
        "timestamp": NOW,
        "details": details,
        "request_id": "4f2d7c1f0c6b4a0fb3a2d6c1a9b8e7f0",
    }


ERROR_EXAMPLES: dict[int, dict[str, Any]] = {
    400: error(
        400,
        "VALIDATION_ERROR",
        "end_ts: must be after start_ts (the end is exclusive)",
        {"field": "end_ts", "issue": "must be after start_ts (the end is exclusive)"},
    ),
    401: error(401, "AUTHENTICATION_FAILED", "A valid API key is needed in the X-API-Key header."),
    403: error(
        403,
        "AUTHORIZATION_FAILED",
        "This API key lacks the scope telemetry:read: ask for a key that has it.",
        {"missing_scopes": ["telemetry:read"], "required_scopes": ["telemetry:read"]},
    ),
    404: error(
        404,
        "RESOURCE_NOT_FOUND",
        "Nothing is here, or nothing that this key may see: check path and id.",
    ),
    409: error(409, "CONFLICT", "It exists already."),
    413: error(
        413,
        "PAYLOAD_TOO_LARGE",
        "The request body is larger than 16777216 bytes.",
        {"field": "body", "limit_bytes": 16_777_216},
    ),
    415: error(
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        "This operation reads application/json.",
        {"field": "Content-Type", "issue": "must be application/json"},
    ),
    422: error(
        422,
        "VALIDATION_ERROR",
        "page_size: Input should be less than or equal to 1000",
        {"field": "page_size", "issue": "Input should be less than or equal to 1000"},
    ),
    429: {
        **error(
            429,
            "RATE_LIMIT_EXCEEDED",
            "Rate limit exceeded: 100 requests per 60 seconds.",
            {"limited_by": "gateway", "limit": 100, "window_seconds": 60},
        ),
        "error": "Rate limit exceeded",
        "detail": "Rate limit exceeded: 100 requests per 60 seconds.",
        "retry_after": 42,
    },
    500: error(
        500, "INTERNAL_ERROR", "The gateway failed to answer this request. Tell its operator the request_id."
    ),
    502: error(
        502,
        "UPSTREAM_ERROR",
        "ThingsBoard failed to process the request. Try again, then tell the operator the request_id.",
    ),
    503: error(503, "UPSTREAM_UNAVAILABLE", "ThingsBoard cannot be reached. Try again shortly."),
    504: error(
        504, "UPSTREAM_TIMEOUT", "ThingsBoard did not answer in time. Try again, or ask for less at once."
    ),
}
