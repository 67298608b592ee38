"""Device routes (devices.json, customer.json)."""

from collections.abc import Callable
from typing import Any

from tb_simulator.access import check_uuid, checked
from tb_simulator.answers import Answer, bad_request, forbidden, not_found, ok, server_error
from tb_simulator.makers import make_device
from tb_simulator.pages import COMMON_SORT_KEYS, Selection, entity_page
from tb_simulator.routing import CUSTOMER_USER, MEMBERS, TENANT, Call, Routes
from tb_simulator.saving import customer_of, delete, save
from tb_simulator.world import NO_CUSTOMER, Entity, World
from tb_simulator.world_types import reference

routes = Routes()


def info(world: World, device: Entity) -> dict[str, Any]:
    """Return a device as the info routes show it."""
    body = device.body
    customer = world.find("CUSTOMER", device.customer or "")
    profile = world.find("DEVICE_PROFILE", body["deviceProfileId"]["id"])
    return {
        **body,
        "customerTitle": customer.name if customer else None,
        "customerIsPublic": False,
        "deviceProfileName": profile.name if profile else None,
        "active": world.attributes.is_active(device.id),
    }


def _searched(entity: Entity) -> tuple[str | None, ...]:
    return entity.name, entity.body["label"], entity.body["type"]


def _keep(call: Call, customer: str | None) -> tuple[tuple[Any, ...], Callable[[Entity], bool]]:
    kind, profile, active = call.arg("type"), call.arg("deviceProfileId"), call.arg("active")
    is_active = call.world.attributes.is_active

    def keep(entity: Entity) -> bool:
        return (
            (customer is None or entity.customer == customer)
            and (not kind or entity.body["type"] == kind)
            and (not profile or entity.body["deviceProfileId"]["id"] == profile)
            and (active is None or is_active(entity.id) is (active == "true"))
        )

    return (customer, kind, profile, active), keep


def _page(call: Call, customer: str | None, *, infos: bool) -> Answer:
    world = call.world
    identity, keep = _keep(call, customer)
    sort_keys = dict(COMMON_SORT_KEYS)
    show: Callable[[Entity], Any] = lambda entity: entity.fragment  # noqa: E731 - one of two of a kind
    if infos:
        sort_keys |= {
            name: _info_key(world, name) for name in ("deviceProfileName", "customerTitle", "active")
        }
        show = lambda entity: info(world, entity)  # noqa: E731 - as above
    selection = Selection(call.user.tenant, (*identity, infos), keep, _searched, sort_keys, show)
    return entity_page(call, "DEVICE", selection)


def _info_key(world: World, name: str) -> Callable[[Entity], Any]:
    def key(entity: Entity) -> tuple[bool, Any]:
        value = info(world, entity)[name]
        return value is None, value if value is not None else ""

    return key


def own_customer(call: Call) -> str:
    """Return the customer of the path, which a customer user may only be itself."""
    customer = check_uuid(call.params["customerId"])
    if call.user.authority == CUSTOMER_USER and customer != call.user.customer:
        raise forbidden()
    return checked(call, "CUSTOMER", customer).id


@routes.get("/api/tenant/devices", who=TENANT)
def tenant_devices(call: Call) -> Answer:
    """Return a page of the tenant's devices, or the one that ``deviceName`` names."""
    name = call.arg("deviceName")
    if name is not None and call.arg("pageSize") is None:
        return by_name(call, "DEVICE", name)
    return _page(call, None, infos=False)


@routes.get("/api/tenant/deviceInfos", who=TENANT)
def tenant_device_infos(call: Call) -> Answer:
    """Return a page of the tenant's device infos."""
    return _page(call, None, infos=True)


@routes.get("/api/customer/{customerId}/devices")
def customer_devices(call: Call) -> Answer:
    """Return a page of a customer's devices."""
    return _page(call, own_customer(call), infos=False)


@routes.get("/api/customer/{customerId}/deviceInfos")
def customer_device_infos(call: Call) -> Answer:
    """Return a page of a customer's device infos."""
    return _page(call, own_customer(call), infos=True)


@routes.get("/api/devices")
def devices_by_ids(call: Call) -> Answer:
    """Return the devices of a list of ids, unordered and silent about the ones the caller may not see."""
    return by_ids(call, "DEVICE", "deviceIds")


@routes.get("/api/device/types")
def device_types(call: Call) -> Answer:
    """Return the types that have devices, sorted."""
    return ok(types_in_use(call, "DEVICE"))


def by_name(call: Call, kind: str, name: str) -> Answer:
    """Return the tenant's entity of this name."""
    entity = call.world.find_by_name(kind, call.user.tenant, name)
    if entity is None:
        raise not_found()
    return ok(entity.fragment)


def by_ids(call: Call, kind: str, parameter: str) -> Answer:
    """Return those of a list of ids that the caller may see, unordered."""
    text = call.arg(parameter)
    if text is None:
        raise server_error(
            f"Required request parameter '{parameter}' for method parameter type String[] is not present"
        )
    ids = {check_uuid(part.strip()) for part in text.split(",") if part.strip()}
    if not ids:
        raise bad_request(f"Incorrect {parameter} []")
    found = [call.world.find(kind, identifier) for identifier in sorted(ids)]
    own = call.user.customer if call.user.authority == CUSTOMER_USER else None
    return ok(
        [
            entity.fragment
            for entity in found
            if entity and entity.tenant == call.user.tenant and (own is None or entity.customer == own)
        ],
    )


def types_in_use(call: Call, kind: str) -> list[dict[str, Any]]:
    """Return the distinct types of a kind of entity."""
    own = call.user.customer if call.user.authority == CUSTOMER_USER else None
    entities = call.world.every(kind, call.user.tenant)
    names = sorted({e.body["type"] for e in entities if own is None or e.customer == own})
    tenant = reference("TENANT", call.user.tenant)
    return [{"tenantId": tenant, "entityType": kind, "type": name} for name in names]


@routes.get("/api/device/{id}")
def device_by_id(call: Call) -> Answer:
    """Return a device."""
    return ok(checked(call, "DEVICE", call.params["id"]).fragment)


@routes.get("/api/device/info/{id}")
def device_info(call: Call) -> Answer:
    """Return a device's info."""
    return ok(info(call.world, checked(call, "DEVICE", call.params["id"])))


@routes.post("/api/device", who=MEMBERS)
def save_device(call: Call) -> Answer:
    """Create or update a device, with the access token that ``accessToken`` names."""
    token = call.arg("accessToken")
    if call.user.authority == CUSTOMER_USER:
        raise forbidden()

    def create(name: str, kind: str, body: dict[str, Any]) -> Entity:
        customer = customer_of(body, NO_CUSTOMER)
        return make_device(
            call.world, call.user.tenant, name, kind=kind, customer=customer, more=body, token=token
        )

    return ok(save(call, "DEVICE", create, "firmwareId", "softwareId", "deviceData").fragment)


@routes.get("/api/device/{id}/credentials")
def device_credentials(call: Call) -> Answer:
    """Return a device's credentials."""
    return ok(call.world.credentials[checked(call, "DEVICE", call.params["id"]).id])


@routes.delete("/api/device/{id}", who=TENANT)
def delete_device(call: Call) -> Answer:
    """Delete a device."""
    return delete(call, "DEVICE")


def assign(call: Call, entity: Entity, customer: str) -> Answer:
    """Give an entity to a customer, or to nobody."""
    entity.customer = customer
    entity.body["customerId"] = reference("CUSTOMER", customer)
    entity.body["version"] += 1
    call.world.touch(entity)
    return ok(entity.fragment)


@routes.post("/api/customer/{customerId}/device/{deviceId}", who=TENANT)
def assign_device(call: Call) -> Answer:
    """Give a device to a customer."""
    customer = checked(call, "CUSTOMER", call.params["customerId"])
    return assign(call, checked(call, "DEVICE", call.params["deviceId"]), customer.id)


@routes.delete("/api/customer/device/{deviceId}", who=TENANT)
def unassign_device(call: Call) -> Answer:
    """Take a device from its customer."""
    return assign(call, checked(call, "DEVICE", call.params["deviceId"]), NO_CUSTOMER)
