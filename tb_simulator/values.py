"""How ThingsBoard reads and shows values: coercion on the way in, text on the way out.

The rules are in telemetry.json ("save decimals beyond 16 places and integers beyond int64", "read them
back").
"""

import json
import re
from decimal import Decimal
from typing import Any

import orjson

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MOST_DECIMALS = 16
_SHORT_NUMBER = 17

# What orjson would lose: exponents, long decimals and integers, and the constants that Gson reads leniently.
_NEEDS_CARE = re.compile(rb"\d[eE][+-]?\d|\.\d{16}|\d{18}|NaN|Infinity")
_PARSABLE = re.compile(r"-?[0-9]*\.?[0-9]+")


class JsonText(str):
    """An object or array value, kept as the compact text ThingsBoard stores."""

    __slots__ = ()


class _Number(str):
    """A JSON number whose text decides how it is stored."""

    __slots__ = ()


Value = bool | int | float | str
"""A stored value; objects and arrays are ``JsonText``."""


class UnparsableValueError(ValueError):
    """A value that ThingsBoard refuses, in its own words."""


def _keep_number(text: str) -> float | _Number:
    if len(text) <= _SHORT_NUMBER and "e" not in text and "E" not in text:
        return float(text)
    return _Number(text)


def _keep_integer(text: str) -> int | _Number:
    return int(text) if len(text) <= _SHORT_NUMBER else _Number(text)


def load_json(body: bytes) -> Any:
    """Return the body as JSON without losing how its numbers were written.

    Raises:
        ValueError: the body is no JSON.
    """
    if not _NEEDS_CARE.search(body):
        return orjson.loads(body)
    return json.loads(
        body.decode("utf-8"), parse_float=_keep_number, parse_int=_keep_integer, parse_constant=str
    )


def compact(value: Any) -> str:
    """Return an object or array as the text ThingsBoard stores."""
    return orjson.dumps(value, default=_original_number, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _original_number(value: Any) -> Any:
    if isinstance(value, _Number):
        return orjson.Fragment(str(value))
    raise TypeError


def coerce_number(text: str) -> Value:
    """Return what ThingsBoard stores for a number written like this."""
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    scale = -exponent if isinstance(exponent, int) else 0
    simple_double = "." in text and "e" not in text and "E" not in text
    if not simple_double and number == number.to_integral_value():
        whole = int(number)
        return whole if INT64_MIN <= whole <= INT64_MAX else f"{number:f}"
    return float(number) if scale <= MOST_DECIMALS else f"{number:f}"


def coerce(value: Any) -> Value:
    """Return what ThingsBoard stores for a JSON value: text that parses as a number becomes one.

    Raises:
        UnparsableValueError: the value is null.
    """
    kind = type(value)
    if kind is float or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return value if INT64_MIN <= value <= INT64_MAX else str(value)
    if kind is str:
        return _coerce_text(value)
    if kind is _Number:
        return coerce_number(value)
    if value is None:
        raise UnparsableValueError("Can't parse value: null")
    return JsonText(compact(value))


def _coerce_text(value: str) -> Value:
    if value and (value[0].isdigit() or value[0] in "-.") and _PARSABLE.fullmatch(value):
        return coerce_number(value)
    return value


def as_text(value: Value) -> str:
    """Return the value as ThingsBoard shows it without ``useStrictDataTypes``."""
    kind = type(value)
    if kind is float:
        return java_double(value)  # type: ignore[arg-type]
    if kind is bool:
        return "true" if value else "false"
    return str(value)


def as_typed(value: Value) -> Any:
    """Return the value as it goes into JSON with ``useStrictDataTypes=true``."""
    return orjson.Fragment(str(value)) if type(value) is JsonText else value


def java_double(value: float) -> str:
    """Return what Java's ``Double.toString`` says: scientific from 10^7 up and below 10^-3."""
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1e7:  # noqa: PLR2004 - the bounds named above
        return repr(value)
    mantissa, _, exponent = f"{Decimal(repr(value)):E}".partition("E")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{digits if '.' in digits else digits + '.0'}E{int(exponent)}"


def as_query_text(value: Value) -> str:
    """Return the value as entity queries show it: they cast in SQL."""
    return postgresql_double(value) if type(value) is float else as_text(value)


def postgresql_double(value: float) -> str:
    """Return what PostgreSQL makes of a double: ``25`` for 25.0, scientific from 10^15 up and below 10^-4."""
    number = Decimal(repr(value))
    exponent = number.adjusted() if value else 0
    if -5 < exponent < 15:  # noqa: PLR2004 - the bounds named above
        text = f"{number:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    digits = f"{number.scaleb(-exponent).normalize():f}"
    return f"{digits}e{exponent:+03d}"
