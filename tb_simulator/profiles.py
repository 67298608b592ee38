"""Device and asset profile routes (profiles.json): customers read the infos, not the profiles."""

from typing import Any

from tb_simulator.access import checked
from tb_simulator.answers import Answer, ok
from tb_simulator.makers import profile_for
from tb_simulator.pages import COMMON_SORT_KEYS, Selection, entity_page
from tb_simulator.routing import TENANT, Call, Routes
from tb_simulator.world import Entity

routes = Routes()

_INFO_FIELDS = {
    "DEVICE_PROFILE": ("id", "tenantId", "name", "image", "defaultDashboardId", "type", "transportType"),
    "ASSET_PROFILE": ("id", "tenantId", "name", "image", "defaultDashboardId"),
}


def _info(profile: Entity) -> dict[str, Any]:
    return {field: profile.body[field] for field in _INFO_FIELDS[profile.kind]}


def _fragment(profile: Entity) -> Any:
    return profile.fragment


def _page(call: Call, kind: str, *, infos: bool) -> Answer:
    show = _info if infos else _fragment
    keep = lambda _: True  # noqa: E731 - there is nothing to filter by
    selection = Selection(call.user.tenant, (infos,), keep, lambda e: (e.name,), COMMON_SORT_KEYS, show)
    return entity_page(call, kind, selection)


def _names(call: Call, kind: str) -> Answer:
    profiles = sorted(call.world.every(kind, call.user.tenant), key=lambda profile: profile.name)
    return ok([{"id": profile.body["id"], "name": profile.name} for profile in profiles])


@routes.get("/api/deviceProfiles", who=TENANT)
def device_profiles(call: Call) -> Answer:
    """Return a page of device profiles."""
    return _page(call, "DEVICE_PROFILE", infos=False)


@routes.get("/api/assetProfiles", who=TENANT)
def asset_profiles(call: Call) -> Answer:
    """Return a page of asset profiles."""
    return _page(call, "ASSET_PROFILE", infos=False)


@routes.get("/api/deviceProfileInfos")
def device_profile_infos(call: Call) -> Answer:
    """Return a page of device profile infos."""
    return _page(call, "DEVICE_PROFILE", infos=True)


@routes.get("/api/assetProfileInfos")
def asset_profile_infos(call: Call) -> Answer:
    """Return a page of asset profile infos."""
    return _page(call, "ASSET_PROFILE", infos=True)


@routes.get("/api/deviceProfile/names")
def device_profile_names(call: Call) -> Answer:
    """Return the names of all device profiles."""
    return _names(call, "DEVICE_PROFILE")


@routes.get("/api/assetProfile/names")
def asset_profile_names(call: Call) -> Answer:
    """Return the names of all asset profiles."""
    return _names(call, "ASSET_PROFILE")


@routes.get("/api/deviceProfileInfo/default")
def default_device_profile(call: Call) -> Answer:
    """Return the default device profile's info."""
    return ok(_info(profile_for(call.world, "DEVICE", call.user.tenant, "default")))


@routes.get("/api/assetProfileInfo/default")
def default_asset_profile(call: Call) -> Answer:
    """Return the default asset profile's info."""
    return ok(_info(profile_for(call.world, "ASSET", call.user.tenant, "default")))


@routes.get("/api/deviceProfile/{id}", who=TENANT)
def device_profile(call: Call) -> Answer:
    """Return a device profile."""
    return ok(checked(call, "DEVICE_PROFILE", call.params["id"]).fragment)


@routes.get("/api/deviceProfileInfo/{id}")
def device_profile_info(call: Call) -> Answer:
    """Return a device profile's info."""
    return ok(_info(checked(call, "DEVICE_PROFILE", call.params["id"])))
