"""Compares what the simulator answers with what ThingsBoard was recorded to answer."""

import math
import re
from typing import Any

UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
FIRST_TIME_OF_RUN = 1_795_000_000_000
FREE_KEYS = frozenset({"version", "credentialsId"})
MASKED = ("<jwt>", "tb_<key>")


class Ids:
    """The ids of this run for the ids of the recorded one."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def learn(self, recorded: Any, actual: Any) -> None:
        """Pair the ids that stand at the same places."""
        if isinstance(recorded, dict) and isinstance(actual, dict):
            for key in recorded.keys() & actual.keys():
                self.learn(recorded[key], actual[key])
        elif isinstance(recorded, str) and isinstance(actual, str) and UUID_TEXT.fullmatch(recorded):
            self._known.setdefault(recorded, actual)

    def learn_by_name(self, recorded: list[dict[str, Any]], actual: list[dict[str, Any]]) -> None:
        """Pair the ids of entities of the same name."""
        by_name = {item["name"]: item for item in actual}
        for item in recorded:
            if item["name"] in by_name:
                self.learn(item, by_name[item["name"]])

    def replace(self, text: str) -> str:
        """Return a text of the recorded run with the ids of this one."""
        return UUID_TEXT.sub(lambda match: self._known.get(match.group(), match.group()), text)


def differences(
    recorded: Any, actual: Any, ids: Ids, *, unordered: bool = False, where: str = "$"
) -> list[str]:
    """Return where two JSON values differ: keys, types, and values that do not hang on the time."""
    if isinstance(recorded, dict) and isinstance(actual, dict):
        return _of_objects(recorded, actual, ids, unordered=unordered, where=where)
    if isinstance(recorded, list) and isinstance(actual, list):
        return _of_lists(recorded, actual, ids, unordered=unordered, where=where)
    return [] if _same_scalar(recorded, actual, ids, where) else [f"{where}: {recorded!r} became {actual!r}"]


def _of_objects(
    recorded: dict[str, Any], actual: dict[str, Any], ids: Ids, *, unordered: bool, where: str
) -> list[str]:
    found = []
    if recorded.keys() != actual.keys():
        found.append(f"{where}: keys {sorted(recorded.keys() ^ actual.keys())} on one side only")
    for key in sorted(recorded.keys() & actual.keys()):
        inner = f"{where}.{key}"
        found += differences(recorded[key], actual[key], ids, unordered=unordered, where=inner)
    return found


def _of_lists(recorded: list[Any], actual: list[Any], ids: Ids, *, unordered: bool, where: str) -> list[str]:
    if len(recorded) != len(actual):
        return [f"{where}: {len(recorded)} items became {len(actual)}"]
    if not unordered:
        pairs = enumerate(zip(recorded, actual, strict=True))
        return [d for at, (r, a) in pairs for d in differences(r, a, ids, where=f"{where}[{at}]")]
    left, found = list(actual), []
    for item in recorded:
        match = next((a for a in left if not differences(item, a, ids, unordered=True)), None)
        if match is None:
            found.append(f"{where}: nothing like {item!r}")
        else:
            left.remove(match)
    return found


def _same_scalar(recorded: Any, actual: Any, ids: Ids, where: str) -> bool:
    if type(recorded) is not type(actual):
        return False
    if where.rpartition(".")[2] in FREE_KEYS or recorded in MASKED or recorded is None:
        return True
    if isinstance(recorded, float):
        return math.isclose(recorded, actual, rel_tol=1e-12)
    if isinstance(recorded, int):
        return recorded == actual or (recorded > FIRST_TIME_OF_RUN and actual > FIRST_TIME_OF_RUN)
    if isinstance(recorded, str):
        is_time = recorded.isdigit() and len(recorded) == 13 and int(recorded) > FIRST_TIME_OF_RUN
        return is_time or ids.replace(recorded) == actual
    return bool(recorded == actual)


def shape_differences(recorded: Any, actual: Any, types: dict[str, set[type]], where: str = "$") -> list[str]:
    """Return where two values differ in keys and types; a key may have any type it ever had when recorded.

    For pages whose order hangs on ids: other entities stand in the same places.
    """
    key = where.rpartition(".")[2].partition("[")[0]
    if type(recorded) is not type(actual):
        return [] if type(actual) in types.get(key, ()) else [f"{where}: {recorded!r} became {actual!r}"]
    if isinstance(recorded, dict):
        found = []
        if recorded.keys() != actual.keys() and key != "additionalInfo":
            found.append(f"{where}: keys {sorted(recorded.keys() ^ actual.keys())} on one side only")
        both = recorded.keys() & actual.keys()
        return found + [
            d for k in both for d in shape_differences(recorded[k], actual[k], types, f"{where}.{k}")
        ]
    if isinstance(recorded, list):
        if len(recorded) != len(actual):
            return [f"{where}: {len(recorded)} items became {len(actual)}"]
        pairs = enumerate(zip(recorded, actual, strict=True))
        return [d for at, (r, a) in pairs for d in shape_differences(r, a, types, f"{where}[{at}]")]
    return []


def types_by_key(value: Any, types: dict[str, set[type]], key: str = "$") -> dict[str, set[type]]:
    """Collect the types each key has in recorded values."""
    types.setdefault(key, set()).add(type(value))
    items = (
        value.items()
        if isinstance(value, dict)
        else [(key, v) for v in value]
        if isinstance(value, list)
        else ()
    )
    for name, inner in items:
        types_by_key(inner, types, name)
    return types
