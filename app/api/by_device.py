"""Answers about many devices: `data` for those that worked, `errors` for those that did not."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.api.envelope import aged, success
from app.context import context_of
from app.errors import GatewayError, Overloaded, UpstreamError
from app.problems import answer_for

#: By device as it was named: its id if it has one, and what was found or what went wrong.
Outcomes = Mapping[str, tuple[str | None, dict[str, Any] | GatewayError]]


async def charge_devices(request: HTTPConnection, references: Sequence[str]) -> None:
    """Charge these devices to the caller's rate limit, where devices are what it counts.

    Raises:
        RateLimited: they do not all fit into what is left; nothing was charged.
        InvalidRequest: so many would never fit.
    """
    meter = context_of(request.scope).meter
    if meter is not None:
        await meter.charge(len(set(references)), "device_ids")


def answer_by_device(outcomes: Outcomes, *, age: float | None = None) -> Response:
    """Answer 200 with `data`, `errors` and `device_ids`, each keyed as the devices were named.

    Args:
        age: of the oldest value, as in `tagged`.

    Raises:
        GatewayError: the one fault of ThingsBoard that struck all of them: the call has failed then.
    """
    failed = {name: found for name, (_, found) in outcomes.items() if isinstance(found, GatewayError)}
    faults = [error for error in failed.values() if isinstance(error, UpstreamError | Overloaded)]
    if faults and len(faults) == len(outcomes) and len({answer_for(error) for error in faults}) == 1:
        raise faults[0]
    return success(
        {
            "data": {name: found for name, (_, found) in outcomes.items() if name not in failed},
            "errors": {name: _entry(error) for name, error in failed.items()},
            "device_ids": {name: uuid for name, (uuid, _) in outcomes.items() if uuid is not None},
        },
        headers=aged(age),
    )


def _entry(error: GatewayError) -> dict[str, Any]:
    status, code = answer_for(error)
    return {"error": error.message, "error_code": code, "status": status}
