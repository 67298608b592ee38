"""What a restricted key sees of one upstream: one decision for every route, made before anything else.

Another's object and a missing one take the same way to the same refusal: the decision comes from list
look-ups, which answer both alike, never from reading the object, which ThingsBoard refuses sooner than it
misses one. What was seen is believed for `KEPT_SECONDS`. A refusal is not kept: what has just been made or
assigned is there at once, and no second, quicker answer tells the two apart. Only the walk below an asset,
the one look-up that may be large, is not repeated within `RECHECK_SECONDS`.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.context import Restrictions
from app.deadline import DEADLINE, in_time
from app.errors import GatewayError, NotFound, UpstreamGarbled
from app.security_events import note_denied_object
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.entities import EntityCalls, EntityType
from app.thingsboard.shared_reads import own_copy

#: A device that has left the restriction is refused after this time at the latest.
KEPT_SECONDS = 10.0
#: What comes below an asset is seen after this time at the latest.
RECHECK_SECONDS = 1.0
MOST_KEPT = 20_000
#: The id of nothing: it stands for what does not exist, so that both are looked up alike.
NOBODY = "00000000-0000-0000-0000-000000000000"
#: Of a customer's objects, when their list is needed.
MEMBERS_A_PAGE = 1_000

#: ThingsBoard's type and id.
EntityKey = tuple[str, str]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is seen of one type of entity: whatever meets all that is given here."""

    ids: frozenset[str] | None = None
    types: frozenset[str] | None = None
    customer: str | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing can meet it."""
        return self.ids == frozenset() or self.types == frozenset()


NOTHING = Selection(ids=frozenset())


class Visibility:
    """The decisions for all keys with the same restrictions, on one credential. For one event loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        upstream: ThingsBoardClient,
        restrictions: Restrictions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream, self.restrictions, self.clock = upstream, restrictions, clock
        self._seen: OrderedDict[EntityKey, float] = OrderedDict()
        self._lookups = {kind: _Lookups(upstream.entities(kind)) for kind in ("DEVICE", "ASSET")}
        self._below = _Kept(self._walk, self._now)
        self._members = {
            kind: _Kept(_MembersOf(upstream.entities(kind), str(restrictions.customer)).read, self._now)
            for kind in ("DEVICE", "ASSET")
        }

    def _now(self) -> float:
        return self.clock()

    async def check(self, entity_type: str, entity_id: str) -> None:
        """Raise NotFound unless the key sees this entity."""
        if not await self.sees(entity_type, entity_id):
            raise not_visible(entity_type, entity_id)

    async def seen(self, entities: Iterable[EntityKey]) -> frozenset[EntityKey]:
        """Return those that the key sees; their look-ups share calls."""
        asked = list(dict.fromkeys(entities))
        verdicts = await asyncio.gather(*(self.sees(*entity) for entity in asked))
        return frozenset(entity for entity, is_seen in zip(asked, verdicts, strict=True) if is_seen)

    async def sees(self, entity_type: str, entity_id: str) -> bool:
        """Tell whether the key sees this entity; one that does not exist is not seen.

        Where the restriction itself names the object, ThingsBoard still has to say whether it exists.
        """
        if entity_type == "CUSTOMER":
            return entity_id == self.restrictions.customer
        if not self._sees_some(entity_type):
            return False
        named = self.restrictions.devices
        is_named = named is None or entity_id in named
        fits_until = await self._fits(entity_type, entity_id)
        if is_named and fits_until and await self._is_below(entity_type, entity_id, KEPT_SECONDS):
            self._keep((entity_type, entity_id), fits_until)
            return True
        # Whatever the refusal is for, it has cost the same look-ups, and none of it is kept.
        is_below = await self._is_below(entity_type, entity_id, RECHECK_SECONDS)
        return is_named and is_below and fits_until > 0

    def _sees_some(self, entity_type: str) -> bool:
        """Tell whether entities of this type can meet the restriction: assets have no device type."""
        wanted = self.restrictions
        is_for_devices = wanted.devices is not None or wanted.device_types is not None
        return entity_type == "DEVICE" or (entity_type == "ASSET" and not is_for_devices)

    async def _is_below(self, entity_type: str, entity_id: str, most_seconds: float) -> bool:
        """Tell whether it is the restriction's asset, or lies below it; yes, when there is none."""
        if self.restrictions.asset is None:
            return True
        return entity_id in (await self._below.get(most_seconds)).get(entity_type, ())

    async def _fits(self, entity_type: str, entity_id: str) -> float:
        """Return until when the object's type and customer count as the restriction's; 0: they are not."""
        if self.restrictions.customer is None and self.restrictions.device_types is None:
            return math.inf
        now = self.clock()
        until = self._seen.get((entity_type, entity_id), 0.0)
        if until > now:
            return until
        found = await self._lookups[entity_type].find(entity_id)
        return now + KEPT_SECONDS if found is not None and self.admits(entity_type, found) else 0.0

    def _keep(self, entity: EntityKey, until: float) -> None:
        if until < math.inf and self._seen.get(entity) != until:
            self._seen[entity] = until
            self._seen.move_to_end(entity)
            if len(self._seen) > MOST_KEPT:
                self._seen.popitem(last=False)

    def admits(self, entity_type: str, entity: dict[str, Any]) -> bool:
        """Tell whether the type and customer of this object are the restriction's."""
        wanted = self.restrictions
        if wanted.customer is not None and (entity.get("customerId") or {}).get("id") != wanted.customer:
            return False
        return wanted.device_types is None or (
            entity_type == "DEVICE" and entity.get("type") in wanted.device_types
        )

    def admits_new(self, entity_type: str, entity: dict[str, Any]) -> bool:
        """Tell whether a new object of this kind is sure to be seen: it has no id, customer or relations."""
        wanted = self.restrictions
        is_elsewhere = wanted.devices is not None or wanted.customer is not None or wanted.asset is not None
        return not is_elsewhere and self.admits(entity_type, entity)

    async def selection(self, entity_type: EntityType, wanted_type: str | None = None) -> Selection:
        """Return what a list of this type shows, of one device or asset type if wanted."""
        wanted = self.restrictions
        if not self._sees_some(entity_type):
            return NOTHING
        types = wanted.device_types
        if wanted_type is not None:
            types = frozenset({wanted_type} if types is None or wanted_type in types else ())
        ids = wanted.devices
        if wanted.asset is not None:
            below = (await self._below.get(KEPT_SECONDS)).get(entity_type, frozenset())
            ids = below if ids is None else ids & below
        if wanted.customer is None or (ids is None and (types is None or len(types) <= 1)):
            return Selection(ids, types, wanted.customer)
        # ThingsBoard lists a customer's objects of one type, not of some types or ids.
        members = frozenset(await self.members(entity_type))
        return Selection(members if ids is None else ids & members, types)

    async def members(self, entity_type: EntityType) -> dict[str, str]:
        """Return the customer's objects: their types by id, at most `KEPT_SECONDS` old."""
        return await self._members[entity_type].get(KEPT_SECONDS)

    async def _walk(self) -> dict[str, frozenset[str]]:
        """Return the ids of the asset and of what lies below it, by type."""
        root = str(self.restrictions.asset)
        try:
            below = await self._upstream.relations.below("ASSET", root)
        except NotFound:
            # Nothing lies below an asset that has been deleted.
            return {}
        found: dict[str, set[str]] = {"DEVICE": set(), "ASSET": {root}}
        for entity_type, entity_id in below:
            if entity_type in found:
                found[entity_type].add(entity_id)
        return {entity_type: frozenset(ids) for entity_type, ids in found.items()}


def not_visible(entity_type: str, entity_id: str) -> NotFound:
    """Return the refusal of an object that is hidden or missing, and note it in the security log."""
    note_denied_object(entity_type, entity_id)
    return NotFound(note="not_visible")


@dataclass(frozen=True, slots=True)
class _MembersOf:
    """Reads all objects of a customer."""

    calls: EntityCalls
    customer: str

    async def read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        number, has_next = 0, True
        while has_next:
            try:
                page = await self.calls.list_of_customer(
                    self.customer, {"page": number, "pageSize": MEMBERS_A_PAGE}
                )
                found |= {item["id"]["id"]: item["type"] for item in page.items}
            except NotFound:
                # There is no such customer, or the gateway's account may not see it.
                return {}
            except (KeyError, TypeError):
                raise UpstreamGarbled(note="not_an_entity") from None
            number, has_next = number + 1, page.has_next
        return found


class _Kept(Generic[Answer]):
    """The latest answer of one look-up, and the one that is under way."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Answer]], now: Callable[[], float]) -> None:
        self._fetch, self._now = fetch, now
        self._kept: tuple[float, Answer] | None = None
        self._coming: tuple[float, asyncio.Task[Answer]] | None = None

    async def get(self, most_seconds: float) -> Answer:
        """Return an answer that was asked for at most so long ago."""
        now = self._now()
        if self._kept is not None and now - self._kept[0] < most_seconds:
            return self._kept[1]
        if self._coming is None or now - self._coming[0] >= most_seconds:
            task = asyncio.create_task(self._ask(now))
            self._coming = now, task
            # Read even if all who waited have left: asyncio would log it as forgotten.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await in_time(asyncio.shield(self._coming[1]))
        except GatewayError as error:
            raise own_copy(error) from None

    async def _ask(self, began: float) -> Answer:
        DEADLINE.set(None)
        try:
            answer = await self._fetch()
            if self._kept is None or self._kept[0] <= began:
                self._kept = began, answer
            return answer
        finally:
            if self._coming is not None and self._coming[0] == began:
                self._coming = None


class _Lookups:
    """Objects by id; what is asked for in one turn of the event loop is asked for together."""

    def __init__(self, calls: EntityCalls) -> None:
        self._calls = calls
        self._asked: dict[str, asyncio.Future[dict[str, Any] | Exception | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, entity_id: str) -> dict[str, Any] | None:
        """Return the object, or None when ThingsBoard does not show it."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._ask)
        answer = self._asked.setdefault(entity_id, loop.create_future())
        # Shielded: a caller who leaves does not cancel what others wait for.
        found = await in_time(asyncio.shield(answer))
        if isinstance(found, Exception):
            raise own_copy(found)
        return found

    def _ask(self) -> None:
        asked, self._asked = self._asked, {}
        task = asyncio.create_task(self._answer(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asked: dict[str, asyncio.Future[dict[str, Any] | Exception | None]]) -> None:
        found: dict[str, dict[str, Any]] = {}
        failure: Exception | None = None
        DEADLINE.set(None)
        try:
            found = await self._calls.get_many(list(asked))
        except GatewayError as error:
            failure = error
        finally:
            for entity_id, answer in asked.items():
                if not answer.done():
                    answer.set_result(failure or found.get(entity_id))
