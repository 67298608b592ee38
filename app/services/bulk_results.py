"""What became of each device of a bulk upload, in little memory: there may be 100,000 of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.errors import GatewayError
from app.services.values import WarningBudget, Warnings

MOST_DEVICES = 100_000
MOST_LINE_ERRORS = 100
MOST_LISTED_KEYS = 1_000_000
MOST_LISTED_WARNINGS = 10_000
#: Sets of keys that are kept once for all devices that have them.
MOST_SHARED_KEYS = 1_000
#: Errors that are kept once for all devices that have them.
MOST_SHARED_ERRORS = 256


@dataclass(slots=True)
class DeviceResult:
    """What became of one device."""

    reference: str
    device_id: str | None = None
    keys: tuple[str, ...] = ()
    points: int = 0
    error: GatewayError | None = None
    warnings: Warnings | None = None
    #: Nothing more is sent for it: ThingsBoard refused it, or could not be asked.
    is_given_up: bool = False
    is_told: bool = False


#: Told of a device whenever something of it was stored or has failed; False when it cannot listen now.
Follower = Callable[[DeviceResult], bool]


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that was not taken."""

    line: int
    error: str
    reference: str | None


class BulkResults:
    """The results so far. Lives as long as one call."""

    def __init__(self) -> None:
        self.by_device: dict[str, DeviceResult] = {}
        self.line_errors: list[LineError] = []
        self.total_line_errors = 0
        #: Points that ThingsBoard acknowledged.
        self.points = 0
        self.failed_devices = 0
        self.follower: Follower | None = None
        self._budget = WarningBudget(MOST_LISTED_WARNINGS)
        self._listed_keys = 0
        self._shared_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._shared_errors: dict[tuple[type[GatewayError], str], GatewayError] = {}

    def of(self, reference: str) -> DeviceResult | None:
        """Return the result of a device, new if need be, or None when there are too many devices."""
        result = self.by_device.get(reference)
        if result is None and len(self.by_device) < MOST_DEVICES:
            result = self.by_device[reference] = DeviceResult(reference)
        return result

    def note_line(self, line: int, fault: str, reference: str | None) -> None:
        """Note a line that was not taken; the first ones are kept."""
        self.total_line_errors += 1
        if len(self.line_errors) < MOST_LINE_ERRORS:
            self.line_errors.append(LineError(line, fault, reference))

    def note_stored(self, result: DeviceResult, points: int) -> None:
        """Note what ThingsBoard acknowledged."""
        result.points += points
        self.points += points

    def note_failure(self, result: DeviceResult, error: GatewayError) -> None:
        """Note the first error of a device."""
        result.is_told = False
        if result.error is None:
            result.error = self._plain(error)
            self.failed_devices += 1

    def note_warnings(self, result: DeviceResult, warnings: Warnings) -> None:
        """Note what ThingsBoard stores otherwise than it was sent."""
        if warnings:
            result.warnings = result.warnings or Warnings(self._budget)
            result.warnings.merge(warnings)

    def note_keys(self, result: DeviceResult, keys: tuple[str, ...]) -> None:
        """List keys of which something was stored, as far as an answer can list them."""
        if result.keys == keys:
            return
        if result.keys:
            keys = tuple(dict.fromkeys(result.keys + keys))
        self._listed_keys += len(keys) - len(result.keys)
        if self._listed_keys > MOST_LISTED_KEYS:
            keys = ()
            unlisted = Warnings()
            unlisted.add("", "the upload has too many keys; those of this device are not listed")
            self.note_warnings(result, unlisted)
        if len(self._shared_keys) < MOST_SHARED_KEYS:
            keys = self._shared_keys.setdefault(keys, keys)
        result.keys = keys

    def tell(self, result: DeviceResult) -> None:
        """Tell whoever follows the upload how this device stands, if they can listen."""
        if self.follower is not None:
            result.is_told = self.follower(result)

    def untold(self) -> Iterator[DeviceResult]:
        """Return the devices whose present state nobody has been told."""
        return (result for result in self.by_device.values() if not result.is_told)

    def _plain(self, error: GatewayError) -> GatewayError:
        """Return an error without its origin: a traceback keeps all points alive that it has passed."""
        kind = type(error), error.message
        found = self._shared_errors.get(kind) or type(error)(error.message)
        if len(self._shared_errors) < MOST_SHARED_ERRORS:
            self._shared_errors[kind] = found
        return found
