"""All ThingsBoards behind this gateway. What one of them answers, knows or suffers never reaches another."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import structlog

from app.errors import GatewayError, UpstreamTimeout
from app.services.files import FileTurns
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.fair_queue import FairQueue
from app.thingsboard.identity import OLDEST_SUPPORTED
from app.thingsboard.transport import TLSPolicies, Transport
from app.upstream_settings import DEFAULT_UPSTREAM, UpstreamSettings

log = structlog.get_logger("gateway")

#: Longest wait for ThingsBoard in a readiness check: probes time out after a few seconds.
CHECK_TIMEOUT_SECONDS = 3.0
#: Upstreams that are logged in to at once at start: they may all be one cluster.
PROBED_AT_ONCE = 8


class Upstream:
    """One ThingsBoard account, and everything that is kept because of it. For one event loop.

    Args:
        host: address of its ThingsBoard. Accounts of one tenant there share its rate limit, and so the queue
            that paces calls; they share nothing else.
    """

    def __init__(self, name: str, client: ThingsBoardClient, host: str) -> None:
        self.name, self.client, self._host = name, client, host
        #: Which tenant this is, once it is known.
        self.tenant: tuple[str, str] | None = None
        #: A slow ThingsBoard holds its turns for long.
        self.file_turns = FileTurns()
        self._check: asyncio.Task[GatewayError | None] | None = None
        self._next_check: asyncio.Task[GatewayError | None] | None = None

    async def check(self) -> GatewayError | None:
        """Make one authorised call; return what went wrong, within `CHECK_TIMEOUT_SECONDS`.

        Nobody needs a key for a readiness check, so there is one call at a time. Who asks while one is under
        way shares the next: what began earlier would say that ThingsBoard is up because it was.
        """
        if self._next_check is None:
            self._next_check = asyncio.create_task(self._ask(self._check))
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                return await asyncio.shield(self._next_check)
        except TimeoutError:
            return UpstreamTimeout(note="check_timeout")

    async def _ask(self, before: asyncio.Task[GatewayError | None] | None) -> GatewayError | None:
        if before is not None:
            await asyncio.wait([before])
        self._check, self._next_check = self._next_check, None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                await self.client.identity.check()
        except GatewayError as error:
            return error
        except TimeoutError:
            return UpstreamTimeout(note="check_timeout")
        return None

    async def probe(self) -> None:
        """Log in, so that wrong credentials show at start; serving does not wait for it."""
        told = log.bind(upstream=self.name)
        try:
            identity = await self.client.identity.get()
            version = await self.client.identity.version()
        except GatewayError as error:
            told.error(
                "thingsboard_not_ready",
                error_type=type(error).__name__,
                diagnostic="tb_connection_check.py",
            )
            return
        if version is not None and version < OLDEST_SUPPORTED:
            told.error("thingsboard_too_old", version=version, oldest_supported=OLDEST_SUPPORTED)
        self.tenant = self._host, identity.tenant_id
        told.info(
            "thingsboard_ready", authority=identity.authority, tenant_id=identity.tenant_id, version=version
        )

    async def aclose(self) -> None:
        """Close the connections."""
        checks = [each for each in (self._check, self._next_check) if each is not None]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        await self.client.aclose()


def _unwatched(_upstream: str, transport: Transport, _kind: str) -> Transport:
    return transport


class Upstreams(Mapping[str, Upstream]):
    """The upstreams by name. They are many small objects at first; connections come with the calls."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._by_name = dict(upstreams)

    @classmethod
    def build(
        cls,
        configured: Mapping[str, UpstreamSettings],
        transport: Transport | None = None,
        *,
        watch: Callable[[str, Transport, str], Transport] = _unwatched,
        latest_cache_seconds: float = 0,
    ) -> "Upstreams":
        """Build a client for each; nothing is sent yet.

        Args:
            watch: puts something around the transports of an upstream, see `Watch`.
            transport: replaces the network towards the default one.
        """
        policies, given = TLSPolicies(), {DEFAULT_UPSTREAM: transport}
        return cls(
            {
                name: Upstream(
                    name,
                    ThingsBoardClient.from_settings(
                        settings,
                        policies,
                        given.get(name),
                        watch=partial(watch, name),
                        latest_cache_seconds=latest_cache_seconds,
                    ),
                    settings.tb_host,
                )
                for name, settings in configured.items()
            }
        )

    def __getitem__(self, name: str) -> Upstream:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    async def probe(self) -> None:
        """Log in to all of them."""
        turns = asyncio.Semaphore(PROBED_AT_ONCE)

        async def in_turn(upstream: Upstream) -> None:
            async with turns:
                await upstream.probe()

        await asyncio.gather(*map(in_turn, self.values()))
        self._share_queues()

    def queue_stands(self, seconds: float) -> bool:
        """Tell whether calls to any of them have been waiting for their turns for so long, one or another."""
        now = asyncio.get_running_loop().time()
        return any(upstream.client.connection.queue.stands(now, seconds) for upstream in self.values())

    def _share_queues(self) -> None:
        queues: dict[tuple[str, str], FairQueue] = {}
        for upstream in self.values():
            if upstream.tenant is not None:
                connection = upstream.client.connection
                connection.queue = queues.setdefault(upstream.tenant, connection.queue)

    async def aclose(self) -> None:
        """Close all of them, whatever becomes of each."""
        await asyncio.gather(*(upstream.aclose() for upstream in self.values()), return_exceptions=True)
