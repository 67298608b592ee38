"""Lights: switched by a command, and believed when their telemetry says so."""

import asyncio
from dataclasses import dataclass
from typing import Any

from app.deadline import time_left
from app.services import rpc
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.live_listener import Listener
from app.thingsboard.rpc import Command
from app.times import now_ms

METHOD = "setLight"
#: From the device's reply: how long its telemetry is waited for.
VERIFY_SECONDS = 5.0
#: What devices write for on and off, besides true and false, 1 and 0.
TEXTS = {True: frozenset({"on", "true", "1"}), False: frozenset({"off", "false", "0"})}


@dataclass(frozen=True, slots=True)
class Switched:
    """What became of the command, and what was seen since: None where nobody looked, or nothing came."""

    result: rpc.Result
    verified: bool | None = None
    observed: dict[str, Any] | None = None


async def switch(
    upstream: ThingsBoardClient, device_id: str, *, is_on: bool, terms: rpc.Terms, key: str | None
) -> Switched:
    """Switch a light and wait until its telemetry says so.

    The telemetry is listened to before the command leaves, so that nothing is missed.

    Args:
        key: of the telemetry; None: take the device's word.

    Raises:
        GatewayError: as `rpc.send` does; or the live feed cannot be had, and nothing was sent.
    """
    command = Command(METHOD, {"on": is_on})
    if key is None:
        return Switched(await rpc.send(upstream, device_id, command, terms))
    if terms.fail_fast:
        await rpc.refuse_inactive(upstream, device_id)
    async with upstream.live.listen([device_id]) as listener:
        since = now_ms()
        result = await rpc.send(upstream, device_id, command, rpc.Terms(terms.timeout))
        watch = _Watch(key, since, is_on=is_on)
        try:
            async with asyncio.timeout(min(VERIFY_SECONDS, time_left())):
                await watch.read(listener)
        except TimeoutError:
            pass
    return Switched(result, watch.is_verified, watch.observed)


class _Watch:
    """Looks for a point that is newer than the command and says what was commanded."""

    def __init__(self, key: str, since: int, *, is_on: bool) -> None:
        self._key, self._since, self._is_on = key, since, is_on
        self.is_verified = False
        #: That point, or else the newest one since the command.
        self.observed: dict[str, Any] | None = None

    async def read(self, listener: Listener) -> None:
        """Return when it has come, or none can come any more."""
        async for event in listener:
            if event.kind == "gone":
                return
            if event.kind != "telemetry" or event.key != self._key or event.is_first:
                continue
            # By its own time, too: what a device has saved up since before the command comes now as well.
            if event.ts is None or event.ts < self._since:
                continue
            self.is_verified = says(event.value, is_on=self._is_on)
            if self.is_verified or self.observed is None or event.ts >= self.observed["ts"]:
                self.observed = {"ts": event.ts, "value": event.value}
            if self.is_verified:
                return


def says(value: Any, *, is_on: bool) -> bool:
    """Tell whether a value means on, or off: true, 1, `on`, `true`, `1`, in any case, or their opposites."""
    if isinstance(value, str):
        return value.strip().lower() in TEXTS[is_on]
    # Python takes true for 1 and false for 0, which is right here.
    return isinstance(value, int | float) and value == is_on
