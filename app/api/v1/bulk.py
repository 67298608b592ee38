"""Telemetry of many devices in one call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice

import orjson
from fastapi import Request
from starlette.responses import Response, StreamingResponse

from app.api.bulk_progress import MEDIA_TYPE, BulkProgress, Line
from app.api.envelope import success
from app.api.route import requires, versioned_router
from app.context import context_of
from app.deps import SettingsDep, UpstreamDep
from app.errors import GatewayError
from app.problems import answer_for
from app.schemas.uploads import BULK_SCHEMA, BulkAnswer, body_of
from app.services import bulk_streams
from app.services.bulk import BulkUpload
from app.services.bulk_results import BulkResults, DeviceResult
from app.times import now_ms

router = versioned_router("telemetry")

OK, MULTI_STATUS = 200, 207
#: Results of so many devices are encoded together.
MOST_AT_ONCE = 1_000


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
    acknowledged. While ThingsBoard's own rate limit is used up, or it is slow, the upload slows down instead
    of failing; what may have been stored already is sent again only if every point has its `ts`.

    With `Accept: application/x-ndjson` the answer is a stream with status 200: a line for each device as it
    is served, `{"device":"<as sent>", ...}` with the members of its result (the latest line of a device
    holds), and the verdict in the last line, which has `status` and `summary` in place of `device`.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    done = BulkUpload(upstream, settings.bulk_concurrency, context_of(request.scope).meter)
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return BulkProgress(Followed(done, media_type))
    await bulk_streams.upload(done, media_type, request.stream())
    return _answer(done.results)


class Followed:
    """A bulk upload as `BulkProgress` wants it."""

    def __init__(self, bulk: BulkUpload, media_type: str) -> None:
        self._bulk, self._media_type = bulk, media_type

    async def run(self, body: AsyncIterator[bytes], tell: Callable[[Line], bool]) -> None:
        """Store the body."""
        self._bulk.results.follower = lambda result: tell(_line(result))
        await bulk_streams.upload(self._bulk, self._media_type, body)

    def rest(self) -> Iterator[Line]:
        """Return the lines of devices whose state has not been told."""
        return map(_line, self._bulk.results.untold())

    def verdict(self, error: GatewayError | None) -> Line:
        """Return the last line."""
        status, verdict = _verdict(self._bulk.results)
        if error is None:
            return {"status": status, "timestamp": now_ms(), **verdict}
        told = {"message": error.message, "error_code": answer_for(error)[1], "details": error.details}
        return {"status": "failed", "timestamp": now_ms(), **verdict, **told}


def _answer(results: BulkResults) -> Response:
    status, verdict = _verdict(results)
    code = OK if status == "success" else MULTI_STATUS
    groups = iter_groups(results)
    if len(results.by_device) <= MOST_AT_ONCE:
        return success({**verdict, "results": next(groups, {})}, status_code=code, status=status)
    head = orjson.dumps({"status": status, "timestamp": now_ms(), **verdict, "results": {}})
    return StreamingResponse(_pieces(head, groups), status_code=code, media_type="application/json")


async def _pieces(head: bytes, groups: Iterator[dict[str, Line]]) -> AsyncIterator[bytes]:
    """Write the members of `results`, the last member of the answer: not all of them are ever in memory."""
    yield head[:-2] + orjson.dumps(next(groups))[1:-1]
    for group in groups:
        yield b"," + orjson.dumps(group)[1:-1]
        await asyncio.sleep(0)
    yield head[-2:]


def iter_groups(results: BulkResults) -> Iterator[dict[str, Line]]:
    """Return the results in groups of bounded size, keyed as the devices were named."""
    devices = iter(results.by_device.values())
    while group := {result.reference: _shown(result) for result in islice(devices, MOST_AT_ONCE)}:
        yield group


def _verdict(results: BulkResults) -> tuple[str, Line]:
    total, failed, points = len(results.by_device), results.failed_devices, results.points
    is_whole = failed == 0 and results.total_line_errors == 0
    return "success" if is_whole else "partial" if points else "failed", {
        "summary": {
            "total_devices": total,
            "successful_devices": total - failed,
            "failed_devices": failed,
            "total_data_points": points,
        },
        "line_errors": [
            {"line": fault.line, "error": fault.error, "device_id": fault.reference}
            for fault in results.line_errors
        ],
        "total_line_errors": results.total_line_errors,
        "message": f"Stored {points} data points of {total - failed} of {total} devices.",
    }


def _line(result: DeviceResult) -> Line:
    return {"device": result.reference, **_shown(result)}


def _shown(result: DeviceResult) -> Line:
    error = result.error
    return {
        "status": "success" if error is None else "error",
        "device_id": result.device_id,
        "keys_uploaded": result.keys,
        "data_points": result.points,
        "error": error.message if error else None,
        "error_code": answer_for(error)[1] if error else None,
        "warnings": result.warnings.listed() if result.warnings else [],
    }
