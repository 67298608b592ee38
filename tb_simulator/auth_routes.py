"""Login, refresh, users and API keys (auth.json, api_keys.json)."""

from typing import Any

import orjson

from tb_simulator.access import check_uuid, no_such
from tb_simulator.answers import EMPTY, SPRING_JSON, Answer, bad_request, forbidden, ok
from tb_simulator.auth import authentication_failed, bad_credentials
from tb_simulator.routing import ANYONE, CUSTOMER_USER, OPEN, SYS_ADMIN, TENANT, TENANT_ADMIN, Call, Routes
from tb_simulator.world import Entity
from tb_simulator.world_types import reference

routes = Routes()


def _credentials(call: Call, *names: str) -> list[str]:
    """Return text fields of the body; anything else is a 401, not a 400."""
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise authentication_failed() from None
    values = [body.get(name) if isinstance(body, dict) else None for name in names]
    if not all(isinstance(value, str) and value for value in values):
        raise authentication_failed()
    return [str(value) for value in values]


@routes.add("POST", "/api/auth/login", who=OPEN, limited=False)
def login(call: Call) -> Answer:
    """Answer a login with a token pair."""
    username, password = _credentials(call, "username", "password")
    known = call.world.passwords.get(username)
    if known is None or known[0] != password:
        raise bad_credentials()
    return Answer(200, orjson.dumps(call.world.tokens.pair(known[1])), SPRING_JSON)


@routes.add("POST", "/api/auth/token", who=OPEN, limited=False)
def refresh(call: Call) -> Answer:
    """Answer a refresh token with a new pair."""
    (token,) = _credentials(call, "refreshToken")
    return Answer(200, orjson.dumps(call.world.tokens.refresh(token)), SPRING_JSON)


@routes.add("POST", "/api/auth/logout", who=ANYONE)
def logout(call: Call) -> Answer:
    """End the session; its tokens then answer 401 code 11."""
    call.world.tokens.end_session(call.user.session)
    return EMPTY


@routes.get("/api/auth/user", who=ANYONE)
def current_user(call: Call) -> Answer:
    """Return the caller's own user."""
    return ok(_user(call, call.user.user_id).fragment)


@routes.get("/api/system/info", who=OPEN)
def system_info(call: Call) -> Answer:  # noqa: ARG001 - every route has this signature
    """Return the version; auth.json calls it public."""
    return ok(
        {
            "version": "4.3.1.3",
            "artifact": "application",
            "name": "ThingsBoard Server Application",
            "type": "CE",
        }
    )


def _user(call: Call, identifier: str) -> Entity:
    identifier = check_uuid(identifier)
    user = call.world.find("USER", identifier)
    if user is None:
        raise no_such("USER", identifier)
    return user


@routes.get("/api/user/{id}", who=ANYONE)
def user_by_id(call: Call) -> Answer:
    """Return a user of the caller's tenant; customers see themselves only."""
    user = _user(call, call.params["id"])
    if call.user.authority == CUSTOMER_USER and user.id != call.user.user_id:
        raise forbidden()
    if call.user.authority == TENANT_ADMIN and user.tenant != call.user.tenant:
        raise no_such("USER", user.id)
    return ok(user.fragment)


@routes.get("/api/user/{id}/token", who=frozenset({SYS_ADMIN, TENANT_ADMIN}))
def user_token(call: Call) -> Answer:
    """Return a token pair for a user: how a tenant administrator with an API key reaches the WebSocket."""
    user = _user(call, call.params["id"])
    if call.user.authority == TENANT_ADMIN and user.tenant != call.user.tenant:
        raise no_such("USER", user.id)
    return ok(call.world.tokens.pair(user))


def _shown(record: dict[str, Any], **more: Any) -> Answer:
    return ok({**record, **more, "expired": False})


@routes.post("/api/apiKey", who=ANYONE)
def save_api_key(call: Call) -> Answer:
    """Create an API key; its value is shown this once."""
    body = call.json_object()
    if not body.get("description"):
        raise bad_request("API key description should be specified!")
    user = _user(call, str((body.get("userId") or {}).get("id") or call.user.user_id))
    if user.tenant != call.user.tenant:
        raise forbidden()
    identifier, created = call.world.new_id()
    record = {
        "id": reference("API_KEY", identifier),
        "createdTime": created,
        "tenantId": reference("TENANT", user.tenant),
        "userId": reference("USER", user.id),
        "expirationTime": body.get("expirationTime") or 0,
        "description": body["description"],
        "enabled": body.get("enabled", True),
    }
    return _shown(record, value=call.world.tokens.add_api_key(record))


def _api_key(call: Call) -> dict[str, Any]:
    identifier = check_uuid(call.params["id"])
    record = call.world.tokens.find_api_key(identifier)
    if record is None or record["tenantId"]["id"] != call.user.tenant:
        raise no_such("API_KEY", identifier)
    return record


@routes.add("PUT", "/api/apiKey/{id}/enabled/{enabled}", who=ANYONE)
def enable_api_key(call: Call) -> Answer:
    """Switch an API key on or off."""
    record = _api_key(call)
    record["enabled"] = call.params["enabled"] == "true"
    return _shown(record)


@routes.delete("/api/apiKey/{id}", who=ANYONE)
def delete_api_key(call: Call) -> Answer:
    """Delete an API key."""
    call.world.tokens.remove_api_key(_api_key(call)["id"]["id"])
    return EMPTY


@routes.get("/api/tenant/{id}", who=TENANT)
def tenant_by_id(call: Call) -> Answer:
    """Return the caller's tenant."""
    tenant = call.world.find("TENANT", check_uuid(call.params["id"]))
    if tenant is None or tenant.id != call.user.tenant:
        raise forbidden()
    return ok(tenant.fragment)
