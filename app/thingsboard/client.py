"""The one client that all requests of an upstream share."""

import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self

from app.context import Restrictions
from app.thingsboard.alarms import AlarmCalls
from app.thingsboard.attributes import AttributeCalls
from app.thingsboard.bare_transport import BareTransport
from app.thingsboard.connection import Connection, expect_object
from app.thingsboard.entities import DeviceCalls, EntityCalls
from app.thingsboard.fair_queue import FairQueue
from app.thingsboard.identity import IdentitySource
from app.thingsboard.latest_cache import LatestCache
from app.thingsboard.live_feed import LiveFeed
from app.thingsboard.live_tokens import FeedDialler
from app.thingsboard.queries import QueryCalls
from app.thingsboard.relations import RelationCalls
from app.thingsboard.retry import RetryBudget
from app.thingsboard.rpc import RpcCalls
from app.thingsboard.telemetry import TelemetryCalls
from app.thingsboard.tokens import Credential, PasswordLogin, StaticAPIKey
from app.thingsboard.transport import TLSPolicies, Transport, proxy_for
from app.thingsboard.waiting_calls import WaitingCalls
from app.upstream_settings import UpstreamSettings

#: Puts something around a transport that watches its calls; it is told which kind of calls it carries.
Watch = Callable[[Transport, str], Transport]

#: What one bulk upload has under way when ThingsBoard stumbles may all be repeated, half of it twice.
UPLOAD_REPEATS = 32.0

#: Where one entity of each type is read.
ENTITY_PATHS = {
    "DEVICE": "/api/device/{}",
    "ASSET": "/api/asset/{}",
    "ENTITY_VIEW": "/api/entityView/{}",
    "CUSTOMER": "/api/customer/{}",
}


class ThingsBoardClient:
    """All of ThingsBoard that the gateway uses, by resource. Shared by all tasks of one event loop."""

    def __init__(
        self,
        connection: Connection,
        waiting: WaitingCalls,
        name: str,
        dialler: FeedDialler,
        latest: LatestCache | None = None,
    ) -> None:
        self.connection = connection
        #: What bulk uploads may send again, those of all callers together.
        self.repeats = RetryBudget(UPLOAD_REPEATS)
        self.identity = IdentitySource(connection, name)
        self.telemetry = TelemetryCalls(connection, latest)
        self.devices = DeviceCalls(connection, self.identity, "DEVICE", self.telemetry.forget)
        self.assets = EntityCalls(connection, self.identity, "ASSET", self.telemetry.forget)
        self.attributes = AttributeCalls(connection)
        self.relations = RelationCalls(connection)
        self.queries = QueryCalls(connection)
        self.live = LiveFeed(dialler, self.telemetry, self.attributes, self.queries)
        self.alarms = AlarmCalls(connection)
        self.rpc = RpcCalls(connection, waiting, self.devices)
        #: This upstream as restricted keys see it, by restriction (`app/services/restricted.py`).
        self.restricted: OrderedDict[Restrictions, ThingsBoardClient] = OrderedDict()

    @classmethod
    def from_settings(
        cls,
        settings: UpstreamSettings,
        policies: TLSPolicies,
        transport: Transport | None = None,
        *,
        watch: Watch,
        latest_cache_seconds: float = 0,
    ) -> Self:
        """Build the client; nothing is sent yet."""
        tls = _tls(settings, policies)
        waiting = transport or _transport(settings, tls, settings.tb_max_rpcs)
        transport = transport or _transport(settings, tls, settings.tb_max_connections)
        credential = _credential(settings, watch(transport, "login"))
        connection = Connection(
            watch(transport, "call"),
            credential,
            queue=FairQueue(settings.tb_max_connections),
            timeout_seconds=settings.tb_timeout_seconds,
            queue_seconds=settings.tb_queue_seconds,
        )
        return cls(
            connection,
            WaitingCalls(watch(waiting, "command"), credential, places=settings.tb_max_rpcs),
            settings.name,
            FeedDialler(connection, settings.tb_host, tls),
            LatestCache(latest_cache_seconds) if latest_cache_seconds else None,
        )

    def entities(self, entity_type: str) -> EntityCalls:
        """Return the calls for DEVICE or ASSET."""
        return self.devices if entity_type == "DEVICE" else self.assets

    async def check(self, entity_type: str, entity_id: str) -> None:
        """Raise NotFound when the caller's key may not see this entity. Here ThingsBoard alone decides."""

    async def get_entity(self, entity_type: str, entity_id: str) -> dict[str, Any]:
        """Return a device, asset, entity view or customer, or raise NotFound."""
        path = ENTITY_PATHS[entity_type].format(entity_id)
        return expect_object(await self.connection.get_json(path))

    async def aclose(self) -> None:
        """Close the connections."""
        await self.live.aclose()
        await self.rpc.aclose()
        await self.connection.transport.aclose()


def _tls(settings: UpstreamSettings, policies: TLSPolicies) -> ssl.SSLContext | None:
    is_tls = settings.tb_host.startswith("https:")
    return policies.of(settings.tb_ca_file, verify=settings.tb_verify_tls) if is_tls else None


def _transport(settings: UpstreamSettings, context: ssl.SSLContext | None, connections: int) -> Transport:
    tls = context or True
    if proxy_for(settings.tb_host) is None:
        return BareTransport(settings.tb_host, tls=tls, connections=connections)
    # Imported here: it costs every start 0.2 s, and few need it.
    from app.thingsboard.aiohttp_transport import AiohttpTransport  # noqa: PLC0415

    return AiohttpTransport(settings.tb_host, tls=tls, connections=connections)


def _credential(settings: UpstreamSettings, transport: Transport) -> Credential:
    if settings.tb_api_key is not None:
        return StaticAPIKey(settings.tb_api_key)
    if settings.tb_username is None or settings.tb_password is None:
        raise AssertionError("settings have been checked")
    return PasswordLogin(transport, settings.tb_username, settings.tb_password, upstream=settings.name)
