"""Telemetry of many devices in one call."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.api.bulk_progress import MEDIA_TYPE, BulkProgress, Report
from app.api.envelope import success
from app.api.route import requires, versioned_router
from app.deps import SettingsDep, UpstreamDep
from app.errors import GatewayError
from app.problems import answer_for
from app.schemas.uploads import BULK_SCHEMA, BulkAnswer, body_of
from app.services import bulk
from app.services.bulk import BulkUpload, DeviceResult
from app.thingsboard.client import ThingsBoardClient
from app.times import now_ms

router = versioned_router("telemetry")

OK, MULTI_STATUS = 200, 207


@router.post(
    "/telemetry/bulk",
    operation_id="upload_bulk_telemetry",
    summary="Upload telemetry of many devices",
    responses={
        OK: {"model": BulkAnswer},
        MULTI_STATUS: {"model": BulkAnswer, "description": "Some devices failed."},
    },
    openapi_extra={**requires("telemetry:write"), **body_of(BULK_SCHEMA)},
)
async def upload_bulk_telemetry(request: Request, upstream: UpstreamDep, settings: SettingsDep) -> Response:
    """Store points of many devices; each has its own result, and one that fails stops no other.

    `application/json`: a map of device ids (or `name:` and the exact name) to uploads, each in any form that
    a single upload takes; 16 MiB at most. Longer uploads are streamed: `application/x-ndjson` with lines
    `{"device_id","ts","values":{}}` or `{"device_id","telemetry":{"key":[{"ts","value"}]}}`, or `text/csv`
    with the header `device_id,ts,key,value`. A line is at most 1 MiB.

    200 when everything was stored, 207 when something was not: `results` says what of each device, keyed as
    sent, and `line_errors` names lines that were not taken. `data_points` counts what ThingsBoard
    acknowledged. While ThingsBoard's own rate limit is used up, the upload slows down instead of failing.

    With `Accept: application/x-ndjson` the answer is a stream with status 200: a line for each device as it
    is served, `{"device":"<as sent>", ...}` with the members of its result (the latest line of a device
    holds), and the verdict in the last line, which has `status` and `summary` in place of `device`.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return _progress(upstream, media_type, settings.bulk_concurrency)
    done = BulkUpload(upstream, settings.bulk_concurrency)
    await bulk.upload(done, media_type, request.stream(), settings.bulk_concurrency)
    results = {reference: _shown(result) for reference, result in done.results.items()}
    status, verdict = _verdict(done)
    code = OK if status == "success" else MULTI_STATUS
    return success({**verdict, "results": results}, status_code=code, status=status)


def _progress(upstream: ThingsBoardClient, media_type: str, concurrency: int) -> Response:
    done = BulkUpload(upstream, concurrency)

    async def upload(body: AsyncIterator[bytes], report: Report) -> dict[str, Any]:
        done.follower = lambda result: report({"device": result.reference, **_shown(result)})
        await bulk.upload(done, media_type, body, concurrency)
        status, verdict = _verdict(done)
        return {"status": status, "timestamp": now_ms(), **verdict}

    def failed(error: GatewayError) -> dict[str, Any]:
        _, verdict = _verdict(done)
        told = {"message": error.message, "error_code": answer_for(error)[1], "details": error.details}
        return {"status": "failed", "timestamp": now_ms(), **verdict, **told}

    return BulkProgress(upload, failed)


def _verdict(done: BulkUpload) -> tuple[str, dict[str, Any]]:
    total, points = len(done.results), done.points
    failed = sum(result.error is not None for result in done.results.values())
    is_whole = failed == 0 and done.total_line_errors == 0
    return "success" if is_whole else "partial" if points else "failed", {
        "summary": {
            "total_devices": total,
            "successful_devices": total - failed,
            "failed_devices": failed,
            "total_data_points": points,
        },
        "line_errors": [
            {"line": fault.line, "error": fault.error, "device_id": fault.reference}
            for fault in done.line_errors
        ],
        "total_line_errors": done.total_line_errors,
        "message": f"Stored {points} data points of {total - failed} of {total} devices.",
    }


def _shown(result: DeviceResult) -> dict[str, Any]:
    error = result.error
    return {
        "status": "success" if error is None else "error",
        "device_id": result.device_id,
        "keys_uploaded": list(result.keys),
        "data_points": result.points,
        "error": error.message if error else None,
        "error_code": answer_for(error)[1] if error else None,
        "warnings": result.warnings.listed(),
    }
