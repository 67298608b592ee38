"""The texts that ThingsBoard writes for values where it does not send them typed."""

import math
import re
from typing import Any

import orjson

#: What ThingsBoard writes for numbers, exponents of Java's doubles included.
NUMBER = re.compile(r"-?[0-9]+(\.([0-9]+)(E-?[0-9]+)?)?")
#: Entity queries cast in SQL, and PostgreSQL writes its exponents so: `5e-05`, `1e+15`.
POSTGRESQL_EXPONENT = re.compile(r"-?[0-9]+(\.[0-9]+)?e[+-][0-9]{2,}")
INT64 = range(-(2**63), 2**63)
#: ThingsBoard stores numbers with more decimals as text.
MOST_DECIMALS = 16


def infer(text: str) -> Any:
    """Guess the value that ThingsBoard wrote as this text."""
    if text in {"true", "false"}:
        return text == "true"
    number = NUMBER.fullmatch(text)
    if number:
        return _infer_number(text, number)
    if POSTGRESQL_EXPONENT.fullmatch(text):
        return _finite(text)
    if text[:1] in {"{", "["}:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def _infer_number(text: str, number: re.Match[str]) -> int | float | str:
    if number[1] is None:
        return int(text) if len(text) <= len(str(INT64.start)) and int(text) in INT64 else text
    # More decimals can only be text, unless an exponent moved the point.
    if number[3] is None and len(number[2]) > MOST_DECIMALS:
        return text
    return _finite(text)


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text
