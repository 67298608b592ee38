"""Alarm routes (alarms.json; facts, Alarms)."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tb_simulator.access import check_entity_type, check_uuid, checked, no_such
from tb_simulator.answers import Answer, bad_request, database_error, forbidden, ok, server_error
from tb_simulator.pages import PageLink, page_data, page_link
from tb_simulator.queries import selected
from tb_simulator.routing import CUSTOMER_USER, Call, Routes
from tb_simulator.world import NO_CUSTOMER, Entity, World
from tb_simulator.world_types import reference

routes = Routes()

Alarm = dict[str, Any]

_SORT_FIELDS = frozenset(
    ("createdTime", "startTs", "endTs", "ackTs", "clearTs", "type", "severity", "status", "originator", "id"),
)
#: Entities of which a query shows the alarms, the oldest ones (`max_entities_per_alarm_subscription`).
MOST_ORIGINATORS = 10_000
_SEVERITIES = ("CRITICAL", "MAJOR", "MINOR", "WARNING", "INDETERMINATE")


def status_of(alarm: Alarm) -> str:
    """Return the status that ThingsBoard derives from the two flags."""
    return f"{'CLEARED' if alarm['cleared'] else 'ACTIVE'}_{'ACK' if alarm['acknowledged'] else 'UNACK'}"


def _shown(alarm: Alarm) -> Alarm:
    return {**alarm, "status": status_of(alarm)}


def info(call: Call, alarm: Alarm) -> Alarm:
    """Return an alarm as the lists show it, with its originator's names."""
    originator = call.world.find(alarm["originator"]["entityType"], alarm["originator"]["id"])
    label = originator.body.get("label") if originator else None
    name = originator.name if originator else None
    return {
        **_shown(alarm),
        "originatorName": name,
        "originatorLabel": label,
        "originatorDisplayName": label or name,
        "assignee": None,
    }


def _may_read(call: Call, alarm: Alarm) -> bool:
    """Return whether an alarm is the caller's: that of the customer whose originator it was when it began."""
    if call.user.authority != CUSTOMER_USER:
        return True
    return bool((alarm["customerId"] or {}).get("id") == call.user.customer)


def _alarm(call: Call) -> Alarm:
    identifier = check_uuid(call.params["id"])
    alarm = call.world.alarms.all.get(identifier)
    if alarm is None or alarm["tenantId"]["id"] != call.user.tenant:
        raise no_such("ALARM", identifier)
    if not _may_read(call, alarm):
        raise forbidden()
    return alarm


def _active(call: Call, originator: dict[str, str], kind: str) -> Alarm | None:
    for alarm in call.world.alarms.all.values():
        if alarm["originator"] == originator and alarm["type"] == kind and not alarm["cleared"]:
            return alarm
    return None


@routes.post("/api/alarm")
def save_alarm(call: Call) -> Answer:
    """Create an alarm, or update the active one of the same originator and type."""
    body = call.json_object()
    kind, severity = body.get("type"), body.get("severity")
    if not kind:
        raise bad_request("Alarm type should be specified!")
    if severity not in _SEVERITIES:
        raise bad_request("Alarm severity should be specified!")
    source = body.get("originator") or {}
    entity = checked(call, check_entity_type(str(source.get("entityType"))), str(source.get("id")))
    known = _active(call, reference(entity.kind, entity.id), str(kind))
    if known:
        end = body.get("endTs") or call.world.now()
        known |= {"severity": severity, "details": body.get("details"), "endTs": end}
        return ok(_shown(known))
    return ok(_shown(raise_alarm(call.world, entity, body)))


def raise_alarm(world: World, entity: Entity, body: Mapping[str, Any]) -> Alarm:
    """Store a new alarm of an entity; the body has at least its type and severity."""
    now = world.now()
    start = body.get("startTs") or now
    customer = entity.customer if entity.customer != NO_CUSTOMER else None
    alarm = {
        "tenantId": reference("TENANT", entity.tenant),
        "customerId": reference("CUSTOMER", customer) if customer else None,
        "type": body["type"],
        "originator": reference(entity.kind, entity.id),
        "severity": body["severity"],
        "acknowledged": False,
        "cleared": False,
        "assigneeId": None,
        "startTs": start,
        "endTs": body.get("endTs") or start,
        **dict.fromkeys(("ackTs", "clearTs", "assignTs"), 0),
        "details": body.get("details"),
        **dict.fromkeys(("propagate", "propagateToOwner", "propagateToTenant"), False),
        "propagateRelationTypes": [],
        "id": reference("ALARM", str(uuid.uuid4())),
        "createdTime": now,
        "name": body["type"],
    }
    world.alarms.all[alarm["id"]["id"]] = alarm
    return alarm


@routes.get("/api/alarm/{id}")
def alarm_by_id(call: Call) -> Answer:
    """Return an alarm."""
    return ok(_shown(_alarm(call)))


@routes.get("/api/alarm/info/{id}")
def alarm_info(call: Call) -> Answer:
    """Return an alarm with its originator's names."""
    return ok(info(call, _alarm(call)))


@routes.post("/api/alarm/{id}/ack")
def acknowledge(call: Call) -> Answer:
    """Acknowledge an alarm, a cleared one too; twice is a 400."""
    alarm = _alarm(call)
    if alarm["acknowledged"]:
        raise bad_request("Alarm was already acknowledged!")
    alarm |= {"acknowledged": True, "ackTs": call.world.now()}
    return ok(info(call, alarm))


@routes.post("/api/alarm/{id}/clear")
def clear(call: Call) -> Answer:
    """Clear an alarm; twice is a 400."""
    alarm = _alarm(call)
    if alarm["cleared"]:
        raise bad_request("Alarm was already cleared!")
    alarm |= {"cleared": True, "clearTs": call.world.now()}
    return ok(info(call, alarm))


@routes.delete("/api/alarm/{id}")
def delete_alarm(call: Call) -> Answer:
    """Delete an alarm."""
    del call.world.alarms.all[_alarm(call)["id"]["id"]]
    return ok(value=True)


def _listed(texts: Sequence[str]) -> set[str]:
    """Return a list parameter; Spring cuts one value at its commas, and leaves several as they are."""
    parts = [part.strip() for part in texts[0].split(",")] if len(texts) == 1 else texts
    return {part for part in parts if part}


def _has_status(alarm: Alarm, statuses: set[str]) -> bool:
    """Return whether an alarm is in these states; opposite ones, and ANY, ask for nothing."""
    if "ANY" in statuses:
        return True
    for wanted, opposite, is_so in (
        ("ACTIVE", "CLEARED", not alarm["cleared"]),
        ("CLEARED", "ACTIVE", alarm["cleared"]),
        ("ACK", "UNACK", alarm["acknowledged"]),
        ("UNACK", "ACK", not alarm["acknowledged"]),
    ):
        if wanted in statuses and opposite not in statuses and not is_so:
            return False
    return True


class _Filter:
    """The filters of the alarm lists. Both ends of the time range are inclusive (facts)."""

    def __init__(
        self, statuses: set[str], severities: set[str], types: set[str], span: tuple[int | None, int | None]
    ) -> None:
        self._statuses, self._severities, self._types = statuses, severities, types
        self._start, self._end = span

    def takes(self, alarm: Alarm) -> bool:
        """Return whether a list with these filters holds the alarm."""
        created = alarm["createdTime"]
        return (
            _has_status(alarm, self._statuses)
            and (not self._severities or alarm["severity"] in self._severities)
            and (not self._types or alarm["type"] in self._types)
            and (self._start is None or created >= self._start)
            and (self._end is None or created <= self._end)
        )


def _given(call: Call, name: str) -> set[str]:
    values = call.query.get(name, ())
    return _listed(values) if values else set()


def _filter(call: Call) -> _Filter:
    statuses = set().union(*(_given(call, name) for name in ("statusList", "searchStatus")))
    # Of the first lists only: a whole status, ACTIVE_UNACK.
    statuses.update(*(text.split("_") for text in _given(call, "status")))
    severities, types = _given(call, "severityList"), _given(call, "typeList")
    return _Filter(statuses, severities, types, (call.number("startTime"), call.number("endTime")))


def _sort_key(name: str) -> Callable[[Alarm], Any]:
    if name not in _SORT_FIELDS:
        raise database_error()
    if name == "status":
        return status_of
    if name in {"originator", "id"}:
        return lambda alarm: alarm[name]["id"]
    return lambda alarm: alarm[name]


def _page(call: Call, originator: dict[str, str] | None = None) -> Answer:
    link, wanted = page_link(call), _filter(call)
    alarms = [
        alarm
        for alarm in call.world.alarms.all.values()
        if alarm["tenantId"]["id"] == call.user.tenant
        and (originator is None or alarm["originator"] == originator)
        and wanted.takes(alarm)
        # A list of an entity is checked by that entity alone.
        and (originator is not None or _may_read(call, alarm))
        and link.text in alarm["type"].lower()
    ]
    alarms.sort(key=_sort_key(link.sort or "createdTime"), reverse=link.descending or link.sort is None)
    page = page_data(alarms, link)
    page["data"] = [info(call, alarm) for alarm in page["data"]]
    return ok(page)


@routes.get("/api/alarms", "/api/v2/alarms")
def all_alarms(call: Call) -> Answer:
    """Return a page of the alarms the caller may see."""
    return _page(call)


@routes.get("/api/alarm/{entityType}/{id}", "/api/v2/alarm/{entityType}/{id}")
def alarms_of_entity(call: Call) -> Answer:
    """Return a page of an entity's alarms."""
    entity = checked(call, check_entity_type(call.params["entityType"]), call.params["id"])
    return _page(call, reference(entity.kind, entity.id))


@routes.post("/api/alarmsQuery/find")
def find_alarms(call: Call) -> Answer:
    """Return a page of the alarms of the entities that a query finds."""
    body = call.json_object()
    if body.get("alarmFields") is None:
        raise server_error('Cannot invoke "java.util.List.iterator()" because it is null')
    link = body.get("pageLink") or {}
    lists = [set(link.get(name) or ()) for name in ("statusList", "severityList", "typeList")]
    # A time of 0 is none.
    wanted = _Filter(lists[0], lists[1], lists[2], (link.get("startTs") or None, link.get("endTs") or None))
    oldest = sorted(selected(call, body), key=lambda entity: int(entity.body["createdTime"]))
    ids = {entity.id for entity in oldest[:MOST_ORIGINATORS]}
    alarms = [a for a in call.world.alarms.all.values() if a["originator"]["id"] in ids and wanted.takes(a)]
    order = link.get("sortOrder") or {}
    key = str((order.get("key") or {}).get("key") or "createdTime")
    alarms.sort(key=_sort_key(key), reverse=str(order.get("direction") or "DESC").upper() == "DESC")
    page = page_data(
        alarms, PageLink(int(link.get("pageSize") or 10), int(link.get("page") or 0), "", None, False)
    )
    page["data"] = [{**info(call, a), "entityId": a["originator"], "latest": {}} for a in page["data"]]
    return ok(page)
