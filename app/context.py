"""The one object that all stages of a request share."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import Scope

if TYPE_CHECKING:
    from app.metering import Meter
    from app.security_events import Note

KEY = "gateway.context"

#: Whose turn a call to ThingsBoard takes: the id of the caller's key, or nothing for the gateway's own work.
#: The API key stage sets it for every request: uvicorn may hand a request the context of the one before it.
TURN: ContextVar[str] = ContextVar("turn", default="")
#: Seconds that a call may wait for its turn; None: `TB_QUEUE_SECONDS`. Uploads and exports have more.
PATIENCE: ContextVar[float | None] = ContextVar("patience", default=None)
#: How often the call at hand was made before: for spans.
RESENT: ContextVar[int] = ContextVar("resent", default=0)
#: The request at hand, for what happens below the routes. Set for every request, as `TURN` is.
CURRENT: ContextVar["RequestContext | None"] = ContextVar("current", default=None)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """Which objects a key may see. Each one that is given narrows: an object must meet all of them."""

    #: UUIDs of devices.
    devices: frozenset[str] | None = None
    #: Exact names of device types.
    device_types: frozenset[str] | None = None
    #: UUID of a customer: its devices and assets.
    customer: str | None = None
    #: UUID of an asset: itself and what lies below it by relations.
    asset: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds the API key of this request, and what the key may do."""

    id: str
    name: str
    scopes: frozenset[str]
    #: None: whatever the credential of its upstream may see.
    restrictions: Restrictions | None = None
    #: Name of the ThingsBoard credential that serves this key.
    upstream: str = "default"
    #: Limits of the key's own, such as `10/second;1000/hour`, in place of those per address.
    rate_limit: str | None = None
    #: Streams that may be open at once; None: no limit of the key's own.
    max_streams: int | None = None
    #: When this key stops working, in ms since the epoch.
    expires_at: int | None = None
    #: Which secret it came with, to find it again after the key file changed.
    digest: bytes = field(default=b"", repr=False, compare=False)


@dataclass(slots=True)
class RequestContext:
    """Made by the first stage, filled by the later ones, gone with the request."""

    request_id: str
    client_address: str = ""
    #: Whether a trusted proxy stands in between: what it says of the caller counts.
    is_proxied: bool = False
    #: Of the request's span, if spans are made.
    trace_id: str | None = None
    caller: Caller | None = None
    #: Headers that later stages want on whatever answer leaves, errors included.
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    error_code: str | None = None
    error_note: str | None = None
    rate_limit: dict[str, int] | None = None
    #: Charges the devices of this call; None: a call counts once, whatever it names.
    meter: "Meter | None" = None
    #: Security events that are not in the log yet.
    notes: "list[Note]" = field(default_factory=list)
    _waits: int = 0
    _waited: float = 0.0
    _waiting_since: float = 0.0

    def begin_wait(self) -> None:
        """Note that this request begins to wait for ThingsBoard; it may do so several times at once."""
        if not self._waits:
            self._waiting_since = perf_counter()
        self._waits += 1

    def end_wait(self) -> None:
        """Note that what began with `begin_wait` is over."""
        self._waits -= 1
        if not self._waits:
            self._waited += perf_counter() - self._waiting_since

    @property
    def upstream_seconds(self) -> float:
        """How long this request has waited for ThingsBoard, turns in the queue included."""
        return self._waited + (perf_counter() - self._waiting_since if self._waits else 0.0)


def context_of(scope: Scope) -> RequestContext:
    """Return the context that the request-id stage put into this scope."""
    context: RequestContext = scope[KEY]
    return context
