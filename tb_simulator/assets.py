"""Asset, customer and entity view routes (assets.json, customer.json)."""

from collections.abc import Callable
from typing import Any

from tb_simulator.access import checked
from tb_simulator.answers import EMPTY, Answer, bad_request, forbidden, ok
from tb_simulator.devices import assign, by_ids, by_name, own_customer, types_in_use
from tb_simulator.makers import make_asset, make_customer, make_entity_view
from tb_simulator.pages import COMMON_SORT_KEYS, Selection, entity_page
from tb_simulator.routing import CUSTOMER_USER, TENANT, Call, Routes
from tb_simulator.saving import customer_of, delete, save
from tb_simulator.world import NO_CUSTOMER, Entity, World

routes = Routes()


def info(world: World, asset: Entity) -> dict[str, Any]:
    """Return an asset as the info routes show it."""
    customer = world.find("CUSTOMER", asset.customer or "")
    title = customer.name if customer else None
    return {
        **asset.body,
        "customerTitle": title,
        "customerIsPublic": False,
        "assetProfileName": asset.body["type"],
    }


def _searched(entity: Entity) -> tuple[str | None, ...]:
    return entity.name, entity.body["label"], entity.body["type"]


def _page(call: Call, customer: str | None, *, infos: bool) -> Answer:
    world, kind, profile = call.world, call.arg("type"), call.arg("assetProfileId")

    def keep(entity: Entity) -> bool:
        return (
            (customer is None or entity.customer == customer)
            and (not kind or entity.body["type"] == kind)
            and (not profile or entity.body["assetProfileId"]["id"] == profile)
        )

    def show(entity: Entity) -> Any:
        return info(world, entity) if infos else entity.fragment

    identity = (customer, kind, profile, infos)
    selection = Selection(call.user.tenant, identity, keep, _searched, COMMON_SORT_KEYS, show)
    return entity_page(call, "ASSET", selection)


@routes.get("/api/tenant/assets", who=TENANT)
def tenant_assets(call: Call) -> Answer:
    """Return a page of the tenant's assets, or the one that ``assetName`` names."""
    name = call.arg("assetName")
    if name is not None and call.arg("pageSize") is None:
        return by_name(call, "ASSET", name)
    return _page(call, None, infos=False)


@routes.get("/api/tenant/assetInfos", who=TENANT)
def tenant_asset_infos(call: Call) -> Answer:
    """Return a page of the tenant's asset infos."""
    return _page(call, None, infos=True)


@routes.get("/api/customer/{customerId}/assets")
def customer_assets(call: Call) -> Answer:
    """Return a page of a customer's assets."""
    return _page(call, own_customer(call), infos=False)


@routes.get("/api/customer/{customerId}/assetInfos")
def customer_asset_infos(call: Call) -> Answer:
    """Return a page of a customer's asset infos."""
    return _page(call, own_customer(call), infos=True)


@routes.get("/api/assets")
def assets_by_ids(call: Call) -> Answer:
    """Return the assets of a list of ids, unordered and silent about the ones the caller may not see."""
    return by_ids(call, "ASSET", "assetIds")


@routes.get("/api/asset/types")
def asset_types(call: Call) -> Answer:
    """Return the types that have assets, sorted."""
    return ok(types_in_use(call, "ASSET"))


@routes.get("/api/asset/{id}")
def asset_by_id(call: Call) -> Answer:
    """Return an asset."""
    return ok(checked(call, "ASSET", call.params["id"]).fragment)


@routes.get("/api/asset/info/{id}")
def asset_info(call: Call) -> Answer:
    """Return an asset's info."""
    return ok(info(call.world, checked(call, "ASSET", call.params["id"])))


@routes.post("/api/asset")
def save_asset(call: Call) -> Answer:
    """Create or update an asset."""
    if call.user.authority == CUSTOMER_USER:
        raise forbidden()

    def create(name: str, kind: str, body: dict[str, Any]) -> Entity:
        customer = customer_of(body, NO_CUSTOMER)
        return make_asset(call.world, call.user.tenant, name, kind=kind, customer=customer, more=body)

    return ok(save(call, "ASSET", create).fragment)


@routes.delete("/api/asset/{id}", who=TENANT)
def delete_asset(call: Call) -> Answer:
    """Delete an asset."""
    return delete(call, "ASSET")


@routes.post("/api/customer/{customerId}/asset/{id}", who=TENANT)
def assign_asset(call: Call) -> Answer:
    """Give an asset to a customer."""
    customer = checked(call, "CUSTOMER", call.params["customerId"])
    return assign(call, checked(call, "ASSET", call.params["id"]), customer.id)


@routes.delete("/api/customer/asset/{id}", who=TENANT)
def unassign_asset(call: Call) -> Answer:
    """Take an asset from its customer."""
    return assign(call, checked(call, "ASSET", call.params["id"]), NO_CUSTOMER)


def _titled(call: Call, kind: str, field: str, make: Callable[[dict[str, Any]], Entity]) -> Answer:
    if call.user.authority == CUSTOMER_USER:
        raise forbidden()
    body = call.json_object()
    name = body.get(field)
    if not isinstance(name, str) or not name:
        raise bad_request(f"{kind} {field} should be specified!")
    if body.get("id"):
        return _retitle(call, kind.upper().replace(" ", "_"), field, body)
    if call.world.find_by_name(kind.upper().replace(" ", "_"), call.user.tenant, name):
        raise bad_request(f"{kind} with such {field} already exists!")
    return ok(make(body).fragment)


def _retitle(call: Call, kind: str, field: str, body: dict[str, Any]) -> Answer:
    entity = checked(call, kind, str(body["id"].get("id")))
    entity.body |= {
        **body,
        "id": entity.body["id"],
        "name": body[field],
        "version": entity.body["version"] + 1,
    }
    call.world.rename(entity, body[field])
    return ok(entity.fragment)


@routes.post("/api/customer", who=TENANT)
def save_customer(call: Call) -> Answer:
    """Create or update a customer."""
    return _titled(
        call, "Customer", "title", lambda b: make_customer(call.world, call.user.tenant, b["title"], b)
    )


@routes.get("/api/customer/{id}")
def customer_by_id(call: Call) -> Answer:
    """Return a customer."""
    return ok(checked(call, "CUSTOMER", call.params["id"]).fragment)


@routes.delete("/api/customer/{id}", who=TENANT)
def delete_customer(call: Call) -> Answer:
    """Delete a customer; what it had is the tenant's again."""
    customer = checked(call, "CUSTOMER", call.params["id"])
    for kind in ("DEVICE", "ASSET"):
        for entity in [e for e in call.world.every(kind, call.user.tenant) if e.customer == customer.id]:
            assign(call, entity, NO_CUSTOMER)
    call.world.remove(customer)
    return EMPTY


@routes.get("/api/customers", who=TENANT)
def customers(call: Call) -> Answer:
    """Return a page of the tenant's customers."""
    keep = lambda _: True  # noqa: E731 - there is nothing to filter by
    return entity_page(
        call, "CUSTOMER", Selection(call.user.tenant, (), keep, lambda e: (e.name,), COMMON_SORT_KEYS)
    )


@routes.post("/api/entityView")
def save_entity_view(call: Call) -> Answer:
    """Create or update an entity view."""
    return _titled(call, "Entity view", "name", lambda b: make_entity_view(call.world, call.user.tenant, b))


@routes.get("/api/entityView/{id}")
def entity_view_by_id(call: Call) -> Answer:
    """Return an entity view."""
    return ok(checked(call, "ENTITY_VIEW", call.params["id"]).fragment)


@routes.delete("/api/entityView/{id}", who=TENANT)
def delete_entity_view(call: Call) -> Answer:
    """Delete an entity view."""
    call.world.remove(checked(call, "ENTITY_VIEW", call.params["id"]))
    return EMPTY
