"""Who the gateway is in ThingsBoard: tenant administrators and customer users have different routes."""

import re
from dataclasses import dataclass

import structlog

from app.errors import CallerError, LoginRefused, UpstreamGarbled
from app.thingsboard.connection import Connection, expect_object
from app.thingsboard.tokens import UNUSABLE_SCOPES

VERSION = re.compile(r"(\d+)\.(\d+)")
#: The oldest ThingsBoard whose routes are the ones used here.
OLDEST_SUPPORTED = (3, 6)

log = structlog.get_logger("thingsboard")


@dataclass(frozen=True, slots=True)
class Identity:
    """The account behind the credential. `customer_id` is None for a tenant administrator."""

    authority: str
    tenant_id: str
    customer_id: str | None

    def scoped(self, resource: str) -> str:
        """Return the path of a list that this account may read (recordings customer.json)."""
        if self.customer_id is None:
            return f"/api/tenant/{resource}"
        return f"/api/customer/{self.customer_id}/{resource}"


class IdentitySource:
    """Asks once; an account does not change its authority."""

    def __init__(self, connection: Connection, upstream: str) -> None:
        self._connection, self._log = connection, log.bind(upstream=upstream)
        self._identity: Identity | None = None

    async def get(self) -> Identity:
        """Return the account, or raise LoginRefused for one that cannot do this work."""
        if self._identity is None:
            self._identity = await self._ask(is_shared=True)
        return self._identity

    async def check(self) -> Identity:
        """Ask now: shows that ThingsBoard answers and takes our credential."""
        return await self._ask(is_shared=False)

    async def _ask(self, *, is_shared: bool) -> Identity:
        user = await self._connection.get_json("/api/auth/user", is_one_object=False, is_shared=is_shared)
        return self._read(expect_object(user))

    async def version(self) -> tuple[int, int] | None:
        """Return ThingsBoard's version as (major, minor), or None where it does not tell."""
        try:
            info = expect_object(await self._connection.get_json("/api/system/info", is_one_object=False))
        except CallerError:
            return None
        found = VERSION.match(str(info.get("version", "")))
        return (int(found[1]), int(found[2])) if found else None

    def _read(self, user: dict[str, object]) -> Identity:
        authority = user.get("authority")
        if authority in UNUSABLE_SCOPES:
            self._log.error("login_unusable", hint=UNUSABLE_SCOPES[str(authority)])
            raise LoginRefused(note="unusable_authority")
        if authority not in {"CUSTOMER_USER", "TENANT_ADMIN"}:
            raise UpstreamGarbled(note="unknown_authority")
        customer = _id_in(user.get("customerId")) if authority == "CUSTOMER_USER" else None
        return Identity(authority, _id_in(user.get("tenantId")), customer)


def _id_in(reference: object) -> str:
    if not isinstance(reference, dict) or not isinstance(reference.get("id"), str):
        raise UpstreamGarbled(note="not_an_account")
    return str(reference["id"])
