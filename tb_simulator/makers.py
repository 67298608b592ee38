"""Bodies of new entities, field by field as recorded."""

from collections.abc import Mapping
from typing import Any

from tb_simulator.attribute_store import SERVER
from tb_simulator.world import NO_CUSTOMER, Entity, World
from tb_simulator.world_types import reference

_DEFAULT = {"type": "DEFAULT"}
_PROFILE_KINDS = {"DEVICE": "DEVICE_PROFILE", "ASSET": "ASSET_PROFILE"}


def _base(world: World, kind: str, tenant: str) -> dict[str, Any]:
    identifier, created = world.new_id()
    return {
        "id": reference(kind, identifier),
        "createdTime": created,
        "tenantId": reference("TENANT", tenant),
    }


def make_tenant(world: World, title: str) -> Entity:
    """Create a tenant with its default profiles."""
    identifier, created = world.new_id()
    body = {"id": reference("TENANT", identifier), "createdTime": created, "title": title, "name": title}
    tenant = world.add(Entity("TENANT", body, tenant=identifier, customer=None, name=title))
    for kind in ("DEVICE", "ASSET"):
        profile_for(world, kind, identifier, "default")
    return tenant


def make_customer(world: World, tenant: str, title: str, more: Mapping[str, Any] | None = None) -> Entity:
    """Create a customer."""
    empty = dict.fromkeys(("country", "state", "city", "address", "address2", "zip", "phone", "email"))
    body = {**_base(world, "CUSTOMER", tenant), "title": title, **empty, **(more or {})}
    body |= {
        "name": title,
        "version": 1,
        "externalId": None,
        "additionalInfo": (more or {}).get("additionalInfo"),
    }
    return world.add(Entity("CUSTOMER", body, tenant=tenant, customer=None, name=title))


def make_user(world: World, owner: tuple[str, str], email: str, authority: str, password: str) -> Entity:
    """Create a user of a tenant and customer who can log in."""
    tenant, customer = owner
    body = {
        **_base(world, "USER", tenant),
        "customerId": reference("CUSTOMER", customer),
        "email": email,
        "authority": authority,
        **dict.fromkeys(("firstName", "lastName", "phone")),
        "version": 1,
        "name": email,
        "additionalInfo": None,
    }
    user = world.add(Entity("USER", body, tenant=tenant, customer=customer, name=email))
    world.passwords[email] = (password, user)
    return user


def profile_for(world: World, kind: str, tenant: str, name: str) -> Entity:
    """Return the profile that stands for a device or asset type, made when it is new."""
    profile_kind = _PROFILE_KINDS[kind]
    known = world.find_by_name(profile_kind, tenant, name)
    if known:
        return known
    is_device = kind == "DEVICE"
    body = {
        **_base(world, profile_kind, tenant),
        "name": name,
        "description": f"Default {kind.lower()} profile",
        **dict.fromkeys(("image", "defaultRuleChainId", "defaultDashboardId", "defaultQueueName")),
        **(_DEVICE_PROFILE if is_device else {}),
        **dict.fromkeys(("defaultEdgeRuleChainId", "externalId")),
        "version": 1,
        "default": name == "default",
        **({"profileData": _PROFILE_DATA} if is_device else {}),
    }
    return world.add(Entity(profile_kind, body, tenant=tenant, customer=None, name=name))


_DEVICE_PROFILE = {
    "type": "DEFAULT",
    "transportType": "DEFAULT",
    "provisionType": "DISABLED",
    **dict.fromkeys(("provisionDeviceKey", "firmwareId", "softwareId")),
}
_PROFILE_DATA = {
    "configuration": _DEFAULT,
    "transportConfiguration": _DEFAULT,
    "provisionConfiguration": {"type": "DISABLED", "provisionDeviceSecret": None},
    "alarms": None,
}


def make_device(
    world: World,
    tenant: str,
    name: str,
    *,
    kind: str = "default",
    customer: str = NO_CUSTOMER,
    more: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> Entity:
    """Create a device with its credentials and the ``active`` attribute; a new type makes a profile."""
    more = more or {}
    body = {
        **_base(world, "DEVICE", tenant),
        "customerId": reference("CUSTOMER", customer),
        "name": name,
        "type": kind,
        "label": more.get("label"),
        "deviceProfileId": profile_for(world, "DEVICE", tenant, kind).body["id"],
        **dict.fromkeys(("firmwareId", "softwareId", "externalId")),
        "version": 1,
        "additionalInfo": more.get("additionalInfo"),
        "deviceData": more.get("deviceData")
        or {"configuration": _DEFAULT, "transportConfiguration": _DEFAULT},
    }
    device = Entity("DEVICE", body, tenant=tenant, customer=customer, name=name)
    world.set_access_token(device.id, token)
    world.attributes.save(device.id, SERVER, {"active": False})
    return world.add(device)


def make_asset(
    world: World,
    tenant: str,
    name: str,
    *,
    kind: str = "default",
    customer: str = NO_CUSTOMER,
    more: Mapping[str, Any] | None = None,
) -> Entity:
    """Create an asset; a new type makes a profile."""
    more = more or {}
    body = {
        **_base(world, "ASSET", tenant),
        "customerId": reference("CUSTOMER", customer),
        "name": name,
        "type": kind,
        "label": more.get("label"),
        "assetProfileId": profile_for(world, "ASSET", tenant, kind).body["id"],
        "externalId": None,
        "version": 1,
        "additionalInfo": more.get("additionalInfo"),
    }
    return world.add(Entity("ASSET", body, tenant=tenant, customer=customer, name=name))


def make_entity_view(world: World, tenant: str, body: Mapping[str, Any]) -> Entity:
    """Create an entity view; its data is its own here, not a window on another entity's."""
    name, customer = str(body["name"]), (body.get("customerId") or {}).get("id") or NO_CUSTOMER
    full = {
        **_base(world, "ENTITY_VIEW", tenant),
        "customerId": reference("CUSTOMER", customer),
        "entityId": body.get("entityId"),
        "name": name,
        "type": body.get("type") or "default",
        "keys": body.get("keys") or {"timeseries": [], "attributes": {"cs": [], "ss": [], "sh": []}},
        "startTimeMs": body.get("startTimeMs") or 0,
        "endTimeMs": body.get("endTimeMs") or 0,
        "externalId": None,
        "version": 1,
        "additionalInfo": body.get("additionalInfo"),
    }
    return world.add(Entity("ENTITY_VIEW", full, tenant=tenant, customer=customer, name=name))
