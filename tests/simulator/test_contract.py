"""The simulator answers all that was recorded as ThingsBoard did: status, content type, shape, values."""

import asyncio

import pytest

from tests.simulator.replaying import Key, all_keys, replay_ready

# What is allowed to differ, with its reason; an entry that does not differ fails the test.
KNOWN_DIFFERENCES: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def problems() -> dict[Key, list[str]]:
    async def replay() -> dict[Key, list[str]]:
        async with replay_ready() as ready:
            await ready.run()
            found: dict[Key, list[str]] = ready.problems
            return found

    return asyncio.run(replay())


@pytest.mark.parametrize("key", all_keys(), ids=lambda key: f"{key[0]}: {key[2]}")
def test_it_answers_as_recorded(key: Key, problems: dict[Key, list[str]]) -> None:
    assert key in problems, "never replayed"
    name = (key[0], key[2])
    if name in KNOWN_DIFFERENCES:
        assert problems[key], "no difference left: take it off the list"
    else:
        assert problems[key] == []


def test_every_known_difference_is_of_a_recorded_exchange() -> None:
    assert KNOWN_DIFFERENCES.keys() <= {(name, exchange) for name, _, exchange in all_keys()}
