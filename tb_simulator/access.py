"""The permission checks, in the two dialects ThingsBoard answers them: JSON errors and bare text."""

import uuid
from typing import TYPE_CHECKING

from tb_simulator.answers import NO_PERMISSION, ApiError, PlainError, bad_request, forbidden
from tb_simulator.routing import CUSTOMER_USER, SYS_ADMIN, UUID_TEXT, Call

if TYPE_CHECKING:
    from tb_simulator.auth import Principal
    from tb_simulator.world import Entity

_ENTITY_TYPES_TEXT = """
    TENANT CUSTOMER USER DASHBOARD ASSET DEVICE ALARM RULE_CHAIN RULE_NODE ENTITY_VIEW WIDGETS_BUNDLE
    WIDGET_TYPE TENANT_PROFILE DEVICE_PROFILE ASSET_PROFILE API_USAGE_STATE TB_RESOURCE OTA_PACKAGE EDGE
    RPC QUEUE NOTIFICATION NOTIFICATION_TARGET NOTIFICATION_TEMPLATE NOTIFICATION_REQUEST
    NOTIFICATION_RULE QUEUE_STATS OAUTH2_CLIENT DOMAIN MOBILE_APP MOBILE_APP_BUNDLE CALCULATED_FIELD JOB
    ADMIN_SETTINGS AI_MODEL API_KEY
"""
ENTITY_TYPES = frozenset(_ENTITY_TYPES_TEXT.split())
_TITLES = {"DEVICE": "Device", "ASSET": "Asset", "CUSTOMER": "Customer", "ENTITY_VIEW": "Entity-view"}
_SYSADMIN_REFUSED = "System administrator is not allowed to perform this operation!"


def check_uuid(text: str) -> str:
    """Return a UUID in its usual form, or raise ThingsBoard's 400."""
    if UUID_TEXT.fullmatch(text):
        return text.lower()
    try:
        # Java, too, takes shorter groups ("1-1-1-1-1").
        groups = [int(group, 16) for group in text.split("-")]
        low, middle, high, sequence, node = groups
        return str(uuid.UUID(int=(low << 96) | (middle << 80) | (high << 64) | (sequence << 48) | node))
    except ValueError:
        raise bad_request(f"Invalid UUID string: {text}") from None


def check_entity_type(text: str) -> str:
    """Return an entity type, or raise Java's words about an unknown enum constant."""
    if text not in ENTITY_TYPES:
        raise bad_request(f"No enum constant org.thingsboard.server.common.data.EntityType.{text}")
    return text


def title(kind: str) -> str:
    """Return how messages call an entity type."""
    return _TITLES.get(kind, kind.replace("_", " ").capitalize())


def no_such(kind: str, identifier: str) -> ApiError:
    """Return the 404 of an unknown id."""
    return ApiError(404, f"{title(kind)} with id [{identifier}] is not found", 32)


def may_use(user: "Principal", entity: "Entity") -> bool:
    """Return whether a caller of the entity's tenant may use it: customers only what is theirs."""
    if user.authority != CUSTOMER_USER:
        return True
    if entity.kind == "CUSTOMER":
        return entity.id == user.customer
    return entity.customer == user.customer or entity.kind.endswith("_PROFILE")


def can_read(call: Call, kind: str, identifier: str) -> bool:
    """Return whether the caller may read an entity, for filters that only leave out."""
    entity = call.world.find(kind, identifier)
    return entity is not None and entity.tenant == call.user.tenant and may_use(call.user, entity)


def checked(call: Call, kind: str, identifier: str) -> "Entity":
    """Return an entity the caller may use.

    Raises:
        ApiError: 400 for a malformed id, 404 for an unknown one or another tenant's,
            403 for another customer's.
    """
    identifier = check_uuid(identifier)
    entity = call.world.find(kind, identifier)
    if entity is None or entity.tenant != call.user.tenant:
        raise no_such(kind, identifier)
    if not may_use(call.user, entity):
        raise forbidden()
    return entity


def checked_plain(call: Call, kind: str, identifier: str) -> "Entity":
    """Return an entity the caller may use, with the bare-text errors of telemetry, attributes and RPC."""
    kind, identifier = check_entity_type(kind), check_uuid(identifier)
    if call.user.authority == SYS_ADMIN:
        raise PlainError(403, _SYSADMIN_REFUSED)
    entity = call.world.find(kind, identifier)
    if entity is None or entity.tenant != call.user.tenant:
        raise PlainError(404, f"{title(kind)} with requested id wasn't found!")
    if not may_use(call.user, entity):
        raise PlainError(403, NO_PERMISSION)
    return entity
