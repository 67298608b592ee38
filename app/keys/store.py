"""The keys of this process: judged at every request, read again when their file changes."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from app import toml_tables
from app.context import Caller
from app.errors import ConfigurationError
from app.keys import key_file
from app.keys.entries import ALL, KeyEntry
from app.keys.key_format import checksum_fits
from app.keys.key_ring import HeldKey, KeyRing, Refusal
from app.settings import Settings
from app.times import now_ms
from app.toml_tables import FileFault
from app.upstream_settings import DEFAULT_UPSTREAM

log = structlog.get_logger("security")

#: With the settling below and the time to read a file, a change counts within a second.
POLL_SECONDS = 0.2
#: A file that changed so lately may be half written, and half a file may be a good one with half its keys.
SETTLE_SECONDS = 0.05
#: Digests that were taken away, kept to name the key in the log; the oldest go first.
MOST_REVOKED = 10_000
MOST_IDS_LOGGED = 50

#: What tells states of a file apart without reading it. Links are followed: a swapped one counts.
Mark = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A key that does not count, and why; `key_id` where it is or was one of ours."""

    reason: Refusal
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """Other keys than those in use, and what is different about them."""

    ring: KeyRing
    #: Ids, by what happened to them.
    ids: dict[str, list[str]]
    #: The id behind each digest that no longer counts.
    revoked: dict[bytes, str]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one look at the file found: a fault, a change, or neither. Without a mark it is read again."""

    mark: Mark | None
    fault: str | None = None
    content: bytes = b""
    change: _Change | None = None


class APIKeys:
    """Finds who holds a key, and says whether a caller of earlier still may.

    One object serves the whole process. Only `watch` and `poll` change it, in the event loop.

    Args:
        path: the file the keys came from, to be watched; None for keys that cannot change.
        content: what was read there.
        known: the entries by their text, as `key_file.parse` leaves them.
        upstreams: those that the keys of the file may name; None: any.
        clock: tells the time in ms since the epoch.
    """

    def __init__(
        self,
        entries: tuple[KeyEntry, ...],
        path: Path | None = None,
        content: bytes = b"",
        known: dict[str, KeyEntry] | None = None,
        *,
        upstreams: frozenset[str] | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.path, self.clock, self._upstreams = path, clock, upstreams
        #: Grows by one each time other keys count.
        self.generation = 0
        #: Why the file in its present state is not used; None: it is.
        self.fault: str | None = None
        #: When `fault` last came or went, or keys were loaded, in ms since the epoch.
        self.since = clock()
        #: For metrics: requests refused, by reason; readings that changed the keys; faults of the file.
        self.refused: Counter[Refusal] = Counter()
        self.reloads = self.faults = 0
        self._ring = KeyRing(entries)
        self._content = hashlib.sha256(content).digest()
        self._mark: Mark | None = None
        # Changed in the reading thread only.
        self._known = {} if known is None else known
        self._revoked: dict[bytes, str] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ring.entries)

    @property
    def entries(self) -> Collection[KeyEntry]:
        """The keys in use."""
        return self._ring.entries.values()

    def find(self, presented: bytes) -> HeldKey | Refused:
        """Return the usable key that was presented, or why it is none."""
        if checksum_fits(presented) is False:
            return Refused(Refusal.MISTYPED)
        digest = hashlib.sha256(presented).digest()
        held = self._ring.find(digest)
        if held is None:
            revoked = self._revoked.get(digest)
            return Refused(Refusal.REVOKED if revoked else Refusal.UNKNOWN, revoked)
        reason = held.refusal_at(self.clock())
        return held if reason is None else Refused(reason, held.caller.id)

    def current(self, caller: Caller) -> Caller | None:
        """Return the caller with the rights its key has by now, or None when the key no longer counts."""
        held = self._ring.find(caller.digest)
        if held is None or held.caller.id != caller.id or held.refusal_at(self.clock()) is not None:
            return None
        return held.caller

    def is_live(self, caller: Caller) -> bool:
        """Tell whether the key of this caller would still be taken.

        Ask again after each `wait_for_change`, and at `caller.expires_at`: time alone wakes nobody.
        """
        return self.current(caller) is not None

    async def wait_for_change(self, generation: int) -> int:
        """Return the generation once it is another one than this; the caller's rights may have changed."""
        while self.generation == generation:
            await self._changed.wait()
        return self.generation

    async def watch(self) -> None:
        """Follow the file until cancelled; nothing that is wrong with it ends this."""
        if self.path is None:
            return
        while True:
            try:
                await self.poll(self.path)
            except Exception:
                # Whatever it is, the keys in use stay, and the next look may go well.
                log.exception("keys_watch_failed")
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self, path: Path) -> None:
        """Look at the file once and use what it says, if that is new and good."""
        # In a thread: the disc may be slow, and ten thousand new keys take a second to read.
        reading = await asyncio.to_thread(self._read, path)
        if reading is None:
            return
        self._mark = reading.mark
        if reading.fault is not None:
            self._keep_keys(reading.fault)
        else:
            self._use(reading)

    def _read(self, path: Path) -> _Reading | None:
        """Return None while there is nothing new. Runs in a thread: reads `self`, changes nothing."""
        try:
            found = path.stat()
            mark = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if mark == self._mark or 0 <= time.time() - found.st_ctime < SETTLE_SECONDS:
                return None
            data = toml_tables.read(path)
        except OSError as error:
            return _Reading(None, f"cannot be read ({error.strerror})")
        except FileFault as fault:
            return _Reading(None, str(fault))
        content = hashlib.sha256(data).digest()
        if content == self._content:
            return _Reading(mark, None, content)
        try:
            entries = key_file.parse(data, upstreams=self._upstreams, known=self._known)
        except FileFault as fault:
            return _Reading(mark, str(fault))
        return _Reading(mark, None, content, _change_between(self._ring, KeyRing(entries, self._ring)))

    def _keep_keys(self, fault: str) -> None:
        """Go on with the keys in use, and say so once for each fault."""
        if fault == self.fault:
            return
        self.fault, self.since = fault, self.clock()
        self.faults += 1
        log.error("keys_file_broken", fault=fault, keys_in_use=len(self))

    def _use(self, reading: _Reading) -> None:
        was_broken, change = self.fault is not None, reading.change
        self.fault, self._content = None, reading.content
        if change is not None:
            self._ring = change.ring
            self._revoked |= change.revoked
            while len(self._revoked) > MOST_REVOKED:
                del self._revoked[next(iter(self._revoked))]
            self.generation += 1
            self.reloads += 1
            self._changed.set()
            self._changed = asyncio.Event()
        if change is not None or was_broken:
            self.since = self.clock()
            ids = change.ids if change else {}
            told = {kind: some[:MOST_IDS_LOGGED] for kind, some in ids.items()}
            log.info("keys_reloaded", keys=len(self), was_broken=was_broken, **told)


def _change_between(before: KeyRing, after: KeyRing) -> _Change:
    old, new = before.entries, after.entries
    ids = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(
            key for key in new.keys() & old.keys() if new[key] is not old[key] and new[key] != old[key]
        ),
    }
    live = after.digests()
    revoked = {digest: key_id for digest, key_id in before.digests().items() if digest not in live}
    return _Change(after, ids, revoked)


def load(settings: Settings, upstreams: frozenset[str] | None) -> APIKeys:
    """Return the configured keys, each for one of these upstreams; None: nobody knows which there are.

    Raises:
        ConfigurationError: naming what is wrong with the key or the file.
    """
    if settings.api_keys_file is not None:
        path = settings.api_keys_file.absolute()
        try:
            data, known = toml_tables.read(path), dict[str, KeyEntry]()
            entries = key_file.parse(data, upstreams=upstreams, known=known)
            return APIKeys(entries, path, data, known, upstreams=upstreams)
        except FileFault as fault:
            raise ConfigurationError("\n".join(f"API_KEYS_FILE: {each}" for each in fault.faults)) from None
    if settings.api_key is None:
        raise ConfigurationError("API_KEY or API_KEYS_FILE is needed")
    key = settings.api_key.get_secret_value().encode()
    if checksum_fits(key) is False:
        raise ConfigurationError("API_KEY: looks like a generated key, but its checksum is wrong: mistyped?")
    if upstreams is not None and DEFAULT_UPSTREAM not in upstreams:
        raise ConfigurationError("API_KEY: is for the upstream default: set TB_HOST, or name one so")
    digest = hashlib.sha256(key).hexdigest()
    return APIKeys((KeyEntry(name="API_KEY", id="default", sha256=digest, scopes=(ALL,)),))
