"""The id of a live event: up to where its reader has heard each key, so that it can go on from there.

The gateway keeps nothing of its readers, so the id holds all of it: for each key the time of its newest
point, under a digest of device and key. It is bounded: beyond `MOST_MARKS` keys the ones that were quiet for
the longest are left out, and the id says so. Whoever forges one reads what their key may read anyway.
"""

import base64
import binascii
import struct
from hashlib import blake2b
from typing import Self

from app.errors import InvalidRequest
from app.thingsboard.live_events import LiveEvent
from app.times import EARLIEST, LATEST

MOST_MARKS = 256
#: One id of so many devices holds the mark of each of them besides.
MOST_DEVICES = 100
WHOLE, PARTIAL = b"\x01", b"\x02"
MARKED = {"telemetry", "attribute", "status"}
#: How the text of the second begins.
PARTIAL_TEXT = "Ag"
#: A digest of 6 bytes, and a time.
MARK = struct.Struct(">6sq")
LONGEST = 4 * -(-(1 + (MOST_MARKS + MOST_DEVICES) * MARK.size) // 3)


class Marks:
    """Times by key, those that moved last at the end."""

    def __init__(self) -> None:
        self.is_partial = False
        self._devices: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self._names: dict[tuple[str, ...], bytes] = {}
        self._token: bytes | None = None

    @classmethod
    def read(cls, token: str, field: str) -> Self:
        """Read an id.

        Raises:
            InvalidRequest: it is none of ours.
        """
        marks = cls()
        try:
            marks._times = _unpack(token)
        except (ValueError, binascii.Error, struct.error):
            issue = "is no id of an event of this gateway"
            raise InvalidRequest(
                f"{field}: {issue}; leave it out to begin anew", details={"field": field, "issue": issue}
            ) from None
        marks.is_partial = token.startswith(PARTIAL_TEXT)
        return marks

    def add_device(self, device_id: str) -> None:
        """Note that a device is among those that are heard."""
        self._devices[self._name("device", device_id)] = 0
        self._token = None

    def has_device(self, device_id: str) -> bool:
        """Tell whether a device was among those that were heard."""
        return self._name("device", device_id) in self._times

    def of(self, event: LiveEvent) -> int | None:
        """Return up to when the key of this event was heard; None: never."""
        return self._times.get(self._name_of(event))

    def move(self, event: LiveEvent) -> None:
        """Note that an event was heard; late ones move nothing."""
        if event.ts is None or event.kind not in MARKED:
            return
        name = self._name_of(event)
        before = self._times.get(name)
        if before is None or before < event.ts:
            self._times.pop(name, None)
            self._times[name] = event.ts
            self._token = None
            if len(self._times) > MOST_MARKS + MOST_DEVICES:
                del self._times[next(iter(self._times))]
                self.is_partial = True

    def token(self) -> bytes:
        """Return the id."""
        if self._token is None:
            times = [item for item in self._times.items() if item[0] not in self._devices]
            is_partial = self.is_partial or len(times) > MOST_MARKS
            marks = [*self._devices.items(), *times[-MOST_MARKS:]]
            content = b"".join(MARK.pack(name, ts) for name, ts in marks)
            self._token = base64.urlsafe_b64encode((PARTIAL if is_partial else WHOLE) + content)
        return self._token

    def _name_of(self, event: LiveEvent) -> bytes:
        return self._name(event.kind, event.device_id, event.scope or "", event.key or "")

    def _name(self, *parts: str) -> bytes:
        name = self._names.get(parts)
        if name is None:
            text = "\0".join(parts).encode("utf-8", "surrogatepass")
            name = self._names[parts] = blake2b(text, digest_size=6).digest()
        return name


def _unpack(token: str) -> dict[bytes, int]:
    """Return the marks of an id, or raise one of three errors."""
    content = base64.b64decode(token[:LONGEST].encode("ascii"), altchars=b"-_", validate=True)
    if len(token) > LONGEST or content[:1] not in {WHOLE, PARTIAL}:
        raise ValueError(token)
    marks = dict(MARK.iter_unpack(content[1:]))
    if not all(EARLIEST <= ts <= LATEST for ts in marks.values()):
        raise ValueError(token)
    return marks
