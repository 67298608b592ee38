"""Alarms in the simulator, for the tests of alarm routes: the gateway itself makes none."""

import itertools
from typing import Any

from tb_simulator.server import Simulator
from tb_simulator.world_types import reference
from tests.telemetry_world import START

_numbers = itertools.count(1)


def raise_alarm(
    simulator: Simulator, entity_id: str, kind: str = "too hot", *, entity_type: str = "DEVICE", **fields: Any
) -> str:
    """Put an alarm into the simulator, as ThingsBoard stores it, and return its id.

    Args:
        fields: ThingsBoard's, in place of those of a critical, active, unacknowledged alarm of `START`.
    """
    entity = simulator.world.find(entity_type, entity_id)
    assert entity is not None
    alarm_id = f"ef4df485-11b3-45eb-91e8-{next(_numbers):012x}"
    simulator.world.alarms.all[alarm_id] = {
        "tenantId": reference("TENANT", entity.tenant),
        "customerId": reference("CUSTOMER", entity.customer) if entity.customer else None,
        "type": kind,
        "originator": reference(entity_type, entity_id),
        "severity": "CRITICAL",
        "acknowledged": False,
        "cleared": False,
        "assigneeId": None,
        "startTs": START,
        "endTs": START,
        "ackTs": 0,
        "clearTs": 0,
        "assignTs": 0,
        "details": {"temperature": 99.5},
        "propagate": False,
        "propagateToOwner": False,
        "propagateToTenant": False,
        "propagateRelationTypes": [],
        "id": reference("ALARM", alarm_id),
        "createdTime": START,
        "name": kind,
        **fields,
    }
    return alarm_id
