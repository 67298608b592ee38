"""Alarms: find them, read them, acknowledge and clear them."""

from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import AfterValidator
from starlette.responses import Response

from app.api.entities import DEVICE, Entity, entity_in_path
from app.api.envelope import paged, success, tagged
from app.api.etags import revalidated
from app.api.ranges import TimeQuery
from app.api.route import requires, versioned_router
from app.deps import ExactType, PageNumber, PageSize, UpstreamDep
from app.errors import UnprocessableRequest
from app.schemas.alarms import (
    SEVERITIES,
    SORT_FIELDS,
    AlarmAnswer,
    AlarmList,
    AlarmSortField,
    AlarmStatus,
)
from app.schemas.entities import SortOrder
from app.services.addressing import find_uuid
from app.thingsboard.alarms import AlarmSearch
from app.times import bad_time, parse_time

router = versioned_router("alarms")


def _uuid(text: str) -> str:
    found = find_uuid(text)
    if found is None:
        raise ValueError("must be a UUID")
    return found


AlarmId = Annotated[str, Path(max_length=300, description="UUID of the alarm."), AfterValidator(_uuid)]


async def named_severities(
    severity: Annotated[
        str | None,
        Query(
            max_length=255,
            description=f"Severities, separated by commas: {', '.join(SEVERITIES)}.",
            examples=["CRITICAL,MAJOR"],
        ),
    ] = None,
) -> tuple[str, ...]:
    """Read the list of severities, each once."""
    if severity is None:
        return ()
    named = tuple(dict.fromkeys(part.strip().upper() for part in severity.split(",")))
    if not set(named) <= set(SEVERITIES):
        issue = f"must be of {', '.join(SEVERITIES)}, separated by commas"
        raise UnprocessableRequest(f"severity: {issue}", details={"field": "severity", "issue": issue})
    return named


async def span_of_creation(
    start_ts: Annotated[
        TimeQuery, Query(description="Alarms made from here on: ms since the epoch or ISO 8601.")
    ] = None,
    end_ts: Annotated[
        TimeQuery, Query(description="Alarms made before this: ms since the epoch or ISO 8601.")
    ] = None,
) -> tuple[int | None, int | None]:
    """Read the range of times of creation; it is open where nothing is given."""
    start = None if start_ts is None else parse_time(start_ts, "start_ts")
    end = None if end_ts is None else parse_time(end_ts, "end_ts")
    if start is not None and end is not None and end <= start:
        raise bad_time("end_ts", "must be after start_ts (the end is exclusive)")
    return start, end


async def search_of_query(
    severities: Annotated[tuple[str, ...], Depends(named_severities)],
    span: Annotated[tuple[int | None, int | None], Depends(span_of_creation)],
    page: PageNumber = 0,
    page_size: PageSize = 100,
    status: Annotated[
        AlarmStatus | None,
        Query(description="Only alarms in this state; ACK and UNACK: acknowledged or not."),
    ] = None,
    type: ExactType = None,  # noqa: A002 - the contract's word
    sort_by: Annotated[
        AlarmSortField, Query(description="Severity and status sort by their names.")
    ] = "created_time",
    sort_order: Annotated[SortOrder, Query(description="The newest first unless given.")] = "DESC",
) -> AlarmSearch:
    """Read which alarms are asked for."""
    return AlarmSearch(
        page=page,
        page_size=page_size,
        statuses=() if status is None else tuple(status.split("_")),
        severities=severities,
        kind=type,
        start_ms=span[0],
        end_ms=span[1],
        sort=SORT_FIELDS[sort_by],
        order=sort_order,
    )


SearchDep = Annotated[AlarmSearch, Depends(search_of_query)]


@router.get(
    "/alarms",
    operation_id="list_alarms",
    summary="List alarms",
    responses=revalidated(AlarmList),
    openapi_extra=requires("alarms:read"),
)
async def list_alarms(upstream: UpstreamDep, search: SearchDep) -> Response:
    """Return one page of the alarms that the gateway's account may see, whatever entity they are about."""
    return paged(await upstream.alarms.list_page(search), number=search.page, size=search.page_size)


@router.get(
    f"{DEVICE.path}/alarms",
    operation_id="list_device_alarms",
    summary="List the alarms of a device",
    responses=revalidated(AlarmList),
    openapi_extra=requires("alarms:read"),
)
async def list_device_alarms(
    upstream: UpstreamDep,
    device: Annotated[Entity, Depends(entity_in_path(DEVICE))],
    search: SearchDep,
) -> Response:
    """Return one page of the alarms that are about this device, without those that others propagate to it."""
    listed = await upstream.alarms.of_device(device.id, search)
    return paged(listed, number=search.page, size=search.page_size)


@router.get(
    "/alarms/{alarm_id}",
    operation_id="get_alarm",
    summary="Get one alarm",
    responses=revalidated(AlarmAnswer),
    openapi_extra=requires("alarms:read"),
)
async def get_alarm(upstream: UpstreamDep, alarm_id: AlarmId) -> Response:
    """Return it as ThingsBoard holds it."""
    return tagged({"data": await upstream.alarms.get(alarm_id)})


@router.post(
    "/alarms/{alarm_id}/ack",
    operation_id="acknowledge_alarm",
    summary="Acknowledge an alarm",
    responses={200: {"model": AlarmAnswer}},
    openapi_extra=requires("alarms:write"),
)
async def acknowledge_alarm(upstream: UpstreamDep, alarm_id: AlarmId) -> Response:
    """Acknowledge it, active or cleared, and return it. One that is acknowledged already is a 409."""
    return success({"data": await upstream.alarms.acknowledge(alarm_id)})


@router.post(
    "/alarms/{alarm_id}/clear",
    operation_id="clear_alarm",
    summary="Clear an alarm",
    responses={200: {"model": AlarmAnswer}},
    openapi_extra=requires("alarms:write"),
)
async def clear_alarm(upstream: UpstreamDep, alarm_id: AlarmId) -> Response:
    """Clear it, acknowledged or not, and return it. One that is cleared already is a 409."""
    return success({"data": await upstream.alarms.clear(alarm_id)})
