"""Counts and times what goes over the wire to ThingsBoard, each attempt for itself."""

from collections import Counter
from collections.abc import Mapping
from time import perf_counter

from app import errors
from app.metrics.tally import Tally
from app.thingsboard.transport import Answer, Transport

OUTCOMES: dict[type[BaseException], str] = {
    errors.UpstreamTimeout: "timeout",
    errors.UpstreamReset: "reset",
    errors.UpstreamUnreachable: "unreachable",
    errors.UpstreamGarbled: "garbled",
}
#: The caller left, or something of ours failed: nothing is known of ThingsBoard.
ABANDONED = "abandoned"
BUSY = 429
#: Of a status, by hundreds. ThingsBoard itself says nothing else.
CLASSES = {2: "ok", 4: "refused", 5: "failed"}


class MeasuredTransport:
    """The transport it is given, with each call counted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.outcomes: Counter[str] = Counter()
        self.seconds = Tally()

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        """Send; see `Transport`."""
        began, outcome = perf_counter(), ABANDONED
        try:
            answer = await self._transport.send(
                method, target, headers=headers, body=body, timeout_seconds=timeout_seconds
            )
        except errors.UpstreamError as error:
            outcome = OUTCOMES.get(type(error), "failed")
            raise
        else:
            outcome = "limited" if answer.status == BUSY else CLASSES.get(answer.status // 100, "garbled")
            return answer
        finally:
            self.outcomes[outcome] += 1
            self.seconds.add(perf_counter() - began)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


class CallMetrics:
    """The counted calls of this process, by upstream and kind."""

    def __init__(self) -> None:
        self.transports: dict[tuple[str, str], MeasuredTransport] = {}

    def watch(self, upstream: str, transport: Transport, kind: str) -> Transport:
        """Count what an upstream's transport carries."""
        watched = self.transports[upstream, kind] = MeasuredTransport(transport)
        return watched
