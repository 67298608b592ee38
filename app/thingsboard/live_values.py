"""The types of values that come as text: learnt from reads that are typed."""

from collections.abc import Iterable
from typing import Any

from app.thingsboard.value_texts import infer


class LearntTypes:
    """Which texts of a key are values of a type, and which are text that looks like one.

    A key may have both, `5` and `"5"`, and then nothing can tell them apart. It is learnt by what a text
    looks like (truth, number, JSON), so a key that changes its type is noticed.
    """

    def __init__(self) -> None:
        self._is_typed: dict[tuple[str, type], bool] = {}

    def learn(self, key: str, value: Any) -> None:
        """Take note of a value of which the type is known."""
        if isinstance(value, str):
            looks = _look(infer(value))
            if looks is not str:
                self._is_typed[key, looks] = False
        elif value is not None:
            self._is_typed[key, _look(value)] = True

    def unknown(self, texts: Iterable[tuple[str, str]]) -> set[str]:
        """Return the keys among these (key, text) of which a typed read is needed."""
        return {
            key
            for key, text in texts
            if (looks := _look(infer(text))) is not str and (key, looks) not in self._is_typed
        }

    def settle(self, texts: Iterable[tuple[str, str]]) -> None:
        """Believe the looks of what is still unknown: its value is gone, so nobody can tell any more."""
        for key, text in texts:
            looks = _look(infer(text))
            if looks is not str:
                self._is_typed.setdefault((key, looks), True)

    def read(self, key: str, text: str) -> Any:
        """Return the value of a text."""
        value = infer(text)
        looks = _look(value)
        return value if looks is str or self._is_typed.get((key, looks), True) else text


def _look(value: Any) -> type:
    """Return what a value looks like as text: whole numbers and others are of one kind."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else dict


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, types included: to Python, 1 equals 1.0 and true."""
    return type(one) is type(other) and bool(one == other)
