"""What ThingsBoard does to values, and how they are sent so that it does as little as possible.

Its rules (JsonConverter, recordings telemetry.json): text that reads as a number becomes one; numbers with
more than 16 decimals, and whole numbers beyond 64 bits, become text.
"""

import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from app import key_names

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MOST_DECIMALS = 16
#: From here on ThingsBoard would take the usual notation of a float for a whole number that does not fit.
HUGE = 2.0**63
#: A float may be rounded to 16 decimals when that changes it by no more than this part.
ROUNDING_TOLERANCE = 1e-9
#: orjson writes 254 levels; the envelope of a point needs a few of them.
DEEPEST = 200
#: PostgreSQL's column of text values; JSON values have another one. A longer one fails the batch it is in.
LONGEST_TEXT = 10_000_000
LONGEST_SHOWN = 40
MOST_WARNINGS = 100

#: `0.` and 16 decimals.
LONGEST_EXACT = 18
#: What is looked at as usual text; any longer one takes the longer way.
SHORT_TEXT = 200

ROUNDED = f"has more than {MOST_DECIMALS} decimals; {{!r}} is stored rounded to {{!r}}"
TOO_SMALL = f"is too small for {MOST_DECIMALS} decimals; ThingsBoard stores {{!r}} as text"
TOO_LONG = "is an integer beyond 64 bits; ThingsBoard stores {} as text"
RESPELT = "is text of digits; ThingsBoard stores it spelt as {}"
READ_AS_NUMBER = "is text that reads as a number; ThingsBoard stores the number {!r}"

#: commons-lang's `NumberUtils.isParsable`. Possessive, because uploads may hold megabytes of digits.
PARSABLE = re.compile(r"-?+(?:\d++(?:\.\d++)?+|\.\d++)")


class UnstorableError(ValueError):
    """ThingsBoard cannot store this value; the text says why."""


class InexactError(Exception):
    """A number that orjson may have rounded: read the document again with exact integers."""


class WarningBudget:
    """How many warnings may be listed by all entities of one call together."""

    def __init__(self, left: int) -> None:
        self.left = left


class Warnings:
    """What the caller has to know about an upload: one entry a key and kind, of bounded number."""

    __slots__ = ("_budget", "entries", "omitted")

    def __init__(self, budget: WarningBudget | None = None) -> None:
        self.entries: dict[tuple[str, str], tuple[str, int]] = {}
        self.omitted = 0
        self._budget = budget or WarningBudget(MOST_WARNINGS)

    def __bool__(self) -> bool:
        return bool(self.entries) or self.omitted > 0

    def add(self, key: str, reason: str, *shown: Any) -> None:
        """Note a warning: a reason, with places for what is shown. More of one key and reason are counted."""
        known = self.entries.get((key, reason))
        if known is not None:
            self.entries[key, reason] = (known[0], known[1] + 1)
        elif self._may_list():
            self.entries[key, reason] = (reason.format(*shown) if shown else reason, 1)
        else:
            self.omitted += 1

    def _may_list(self) -> bool:
        if len(self.entries) >= MOST_WARNINGS or self._budget.left == 0:
            return False
        self._budget.left -= 1
        return True

    def merge(self, others: "Warnings") -> None:
        """Take over the warnings of a part of this upload."""
        for place, (reason, count) in others.entries.items():
            known = self.entries.get(place)
            if known is not None:
                self.entries[place] = (known[0], known[1] + count)
            elif self._may_list():
                self.entries[place] = (reason, count)
            else:
                self.omitted += count
        self.omitted += others.omitted

    def listed(self) -> list[dict[str, str]]:
        """Return `[{"key","reason"}]`; the last entry, with an empty key, counts what is not listed."""
        listed = [
            {
                "key": key,
                "reason": reason if count == 1 else f"{reason}; {count - 1} more of this key likewise",
            }
            for (key, _), (reason, count) in self.entries.items()
        ]
        if self.omitted:
            listed.append({"key": "", "reason": f"{self.omitted} further warnings are not listed"})
        return listed


def is_plain(value: Any) -> bool:
    """Tell, quickly, that a value is stored as it is; False says nothing."""
    kind = type(value)
    if kind is float:
        return 1.0 <= value < HUGE or _is_exact_fraction(value)
    if kind is int:
        return bool(INT64_MIN <= value <= INT64_MAX)
    if kind is str:
        # Text that reads as a number begins with a digit, a sign or a point.
        return len(value) <= SHORT_TEXT and value[:1].isalpha() and "\0" not in value
    return kind is bool


def _is_exact_fraction(value: float) -> bool:
    size = abs(value)
    if size >= 1:
        return size < HUGE
    text = repr(size)
    return len(text) <= LONGEST_EXACT and "e" not in text


class Assay:
    """Decides for each value of one upload how it is sent, and notes what ThingsBoard will change."""

    __slots__ = ("_is_exact", "_warnings")

    def __init__(self, warnings: Warnings, *, is_exact: bool) -> None:
        self._warnings, self._is_exact = warnings, is_exact

    def take(self, key: str, value: Any) -> Any:
        """Return what to send for a value.

        Raises:
            UnstorableError: ThingsBoard could not store it.
            InexactError: the value may have lost digits when it was read.
        """
        if is_plain(value):
            return value
        kind = type(value)
        if kind is float:
            return self._float(key, value)
        if kind is int:
            return self._long_integer(key, value)
        if kind is str:
            return self._text(key, value)
        if value is None:
            raise UnstorableError("must not be null")
        return self._nested(value, DEEPEST)

    def _float(self, key: str, value: float) -> Any:
        size = abs(value)
        if size >= HUGE:
            if not self._is_exact:
                raise InexactError
            return orjson.Fragment(f"{Decimal(repr(value)):f}.0")
        rounded = round(value, MOST_DECIMALS)
        if rounded == value:
            return value
        if abs(rounded - value) <= size * ROUNDING_TOLERANCE:
            self._warnings.add(key, ROUNDED, value, rounded)
            return rounded
        self._warnings.add(key, TOO_SMALL, value)
        return value

    def _long_integer(self, key: str, value: int) -> orjson.Fragment:
        self._warnings.add(key, TOO_LONG, _shown(str(value)))
        return orjson.Fragment(str(value))

    def _text(self, key: str, value: str) -> str:
        if len(value) > LONGEST_TEXT:
            raise UnstorableError(f"is text of more than {LONGEST_TEXT} characters")
        if "\0" in value:
            raise UnstorableError("must not hold a NUL character")
        if not is_parsable(value):
            return value
        stored = stored_number(value)
        if isinstance(stored, str):
            if stored != value:
                self._warnings.add(key, RESPELT, _shown(stored))
        elif math.isinf(stored):
            raise UnstorableError("is text that ThingsBoard would store as an infinite number")
        else:
            self._warnings.add(key, READ_AS_NUMBER, stored)
        return value

    def _nested(self, value: Any, levels: int) -> Any:
        """Return an object or array; numbers in it are left alone by ThingsBoard, so they must be exact."""
        if levels == 0:
            raise UnstorableError(f"must not be nested deeper than {DEEPEST} levels")
        if type(value) is dict:
            return {name: self._member(member, levels) for name, member in value.items()}
        return [self._member(member, levels) for member in value]

    def _member(self, member: Any, levels: int) -> Any:
        kind = type(member)
        if kind is dict or kind is list:
            return self._nested(member, levels - 1)
        if kind is float and abs(member) >= HUGE and not self._is_exact:
            raise InexactError
        if kind is int and not INT64_MIN <= member <= INT64_MAX:
            return orjson.Fragment(str(member))
        return member


def is_parsable(text: str) -> bool:
    """Tell whether ThingsBoard takes this text for a number."""
    # Java looks at UTF-16 units, so digits beyond the first plane are none to it.
    return PARSABLE.fullmatch(text) is not None and (text.isascii() or max(text) <= "\uffff")


def stored_number(text: str) -> float | str:
    """Return what ThingsBoard stores for parsable text: an int, a float, or text in plain notation."""
    number = Decimal(text)
    if "." not in text and INT64_MIN <= number <= INT64_MAX:
        return int(number)
    exponent = number.as_tuple().exponent
    if "." in text and isinstance(exponent, int) and -exponent <= MOST_DECIMALS:
        return float(number)
    # Java's BigDecimal knows no negative zero.
    return f"{number or number.copy_abs():f}"


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def find_key_fault(key: str) -> str | None:
    """Return why a key cannot be stored or read again, or None."""
    # Long ones are judged here, so that the cache stays small.
    return key_names.TOO_LONG if len(key) > key_names.LONGEST_KEY else _find_short_key_fault(key)


@lru_cache(maxsize=4096)
def _find_short_key_fault(key: str) -> str | None:
    if "," in key:
        return "the key holds a comma: ThingsBoard could not find it again"
    return key_names.find_fault(key)
