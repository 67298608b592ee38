"""The restricted client: a call that does not say how it is checked cannot be made."""

import inspect
from types import SimpleNamespace

import pytest

from app.errors import NotFound
from app.services import restricted as module
from app.services.restricted import Guarded, restricted
from app.services.visibility import Visibility
from app.thingsboard.alarms import AlarmSearch
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.live_listener import Listener
from tests.restrictions.world import House, view_of


def calls_of(thing: object) -> set[str]:
    return {
        name for name, _ in inspect.getmembers(thing, inspect.iscoroutinefunction) if not name.startswith("_")
    }


#: Calls that routes do not make. They have no checked form, so a restricted key cannot make them.
ABSENT = {
    "devices": {"list_of_customer", "get_many"},
    "assets": {"list_of_customer", "get_many"},
    "relations": {"below"},
    "queries": {"find", "active_of_devices"},
    "alarms": {"find"},
    "telemetry": set(),
    "attributes": set(),
    # Closing is the upstream's.
    "live": {"aclose"},
    "rpc": {"aclose"},
}
#: What a client holds beside calls that name objects.
NO_CALLS = {"connection", "identity", "restricted"}
#: What all keys share: the purse of repetitions.
SHARED = {"repeats"}


async def test_every_call_of_the_client_is_checked_or_absent(keys: SimpleNamespace, house: House) -> None:
    """Whoever adds a call to the client meets this test, and decides."""
    upstream: ThingsBoardClient = keys.app.state.upstreams["default"].client
    view = view_of(keys.app, keys.given["customer"])
    assert set(vars(upstream)) - NO_CALLS - SHARED == set(ABSENT)
    for name in SHARED:
        assert getattr(view, name) is getattr(upstream, name)
    for name, absent in ABSENT.items():
        calls, checked = getattr(upstream, name), getattr(view, name)
        inherited = {
            each
            for each in calls_of(calls)
            if getattr(type(checked), each, None) is getattr(type(calls), each)
        }
        assert inherited == absent, name
    for name in NO_CALLS:
        assert not hasattr(view, name), f"a restricted key reaches {name}"
    assert calls_of(upstream) - calls_of(type(view)) == set()
    own = {each for each in calls_of(upstream) if getattr(type(view), each) is getattr(type(upstream), each)}
    assert own == {"aclose"}


async def test_a_call_without_a_checked_form_fails_instead_of_asking(
    keys: SimpleNamespace, house: House
) -> None:
    view = view_of(keys.app, keys.given["customer"])
    with pytest.raises(AttributeError):
        await view.devices.get_many([house.meter])
    with pytest.raises(AttributeError):
        await view.queries.find({}, page_size=1)
    with pytest.raises(AttributeError):
        await view.relations.below("ASSET", house.building)
    with pytest.raises(AttributeError):
        await view.alarms.find({}, [], AlarmSearch(page=0, page_size=1))


async def test_each_call_refuses_by_itself(keys: SimpleNamespace, house: House) -> None:
    """Whatever a route has checked before, or forgotten to."""
    view = view_of(keys.app, keys.given["devices"])
    alarm = house.alarm_of(house.meter)
    relation = {
        "from": {"entityType": "DEVICE", "id": house.lamp},
        "to": {"entityType": "DEVICE", "id": house.meter},
        "type": "Contains",
    }
    calls = [
        *(
            getattr(part, name)("DEVICE", house.meter)
            for part in (view.telemetry, view.attributes)
            for name in sorted(vars(part))
            if not name.startswith("_")
        ),
        view.relations.save(relation),
        view.relations.delete(relation),
        view.relations.walk("DEVICE", house.meter, "FROM", levels=1),
        view.devices.get(house.meter),
        view.devices.get_by_name("meter"),
        view.devices.id_by_name("meter"),
        view.devices.credentials(house.meter),
        view.devices.delete(house.meter),
        view.devices.save({"id": {"id": house.meter}, "name": "mine", "type": "meter"}),
        view.get_entity("DEVICE", house.meter),
        view.get_entity("CUSTOMER", house.anna),
        view.check("ENTITY_VIEW", house.view),
        view.live.attach(house.meter, Listener()),
        view.alarms.get(alarm),
        view.alarms.acknowledge(alarm),
        view.alarms.clear(alarm),
        view.alarms.of_device(house.meter, AlarmSearch(page=0, page_size=1)),
    ]
    assert len(calls) == 27
    for call in calls:
        with pytest.raises(NotFound):
            await call
    both = await view.queries.latest_of_devices([house.lamp, house.meter], ["temperature"])
    assert list(both) == [house.lamp]


async def test_calls_that_do_not_name_their_entity_first_are_refused_at_once(keys: SimpleNamespace) -> None:
    class NewCalls:
        async def read(self, device_id: str) -> None:
            """Forget the check."""

    upstream: ThingsBoardClient = keys.app.state.upstreams["default"].client
    visibility = Visibility(upstream, view_of(keys.app, keys.given["asset"]).visibility.restrictions)
    with pytest.raises(TypeError, match="read"):
        Guarded(NewCalls(), visibility)


async def test_restrictions_are_bounded_in_memory(
    keys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream: ThingsBoardClient = keys.app.state.upstreams["default"].client
    known = len(upstream.restricted)
    monkeypatch.setattr(module, "MOST_RESTRICTIONS", known)
    given = view_of(keys.app, keys.given["asset"]).visibility.restrictions
    restricted(upstream, type(given)(devices=frozenset({"one more"})))
    assert len(upstream.restricted) == known
