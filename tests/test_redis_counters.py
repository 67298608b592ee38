"""Counting in a real Redis: exact over processes, and never a fault for a caller when it is lost."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from pydantic import SecretStr

from app import redis_counters
from app.quotas import Quota, parse_quota
from app.redis_counters import RedisCounters
from tests.counting import KEYS, QUOTAS, Oracle, attempts, pauses
from tests.redis_server import RedisServer, running_redis

HOURLY = parse_quota("key", "20/hour;50/day")
BOUNDLESS = parse_quota("key", "1000000/hour")


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine busy with other tests may be silent longer than callers should ever wait."""
    monkeypatch.setattr(redis_counters, "SILENCE_SECONDS", 10.0)


@pytest.fixture
async def counters(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisCounters]:
    monkeypatch.setattr(redis_counters, "RETRY_SECONDS", 0.05)
    counters = RedisCounters(server.secret_url)
    yield counters
    await counters.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is the loop itself that is waited for
        await asyncio.sleep(0)


async def recovered(counters: RedisCounters) -> None:
    """Wait until it has found Redis again by itself."""
    assert counters._recovering is not None
    await counters._recovering
    assert counters.is_up


class CountingInRedis(RuleBasedStateMachine):
    """The same oracle as in memory, by the clock of Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.oracle = asyncio.Runner(), Oracle()
        self.redis = running_redis()
        self.server = self.runner.run(self.redis.__aenter__())
        self.counters = RedisCounters(self.server.secret_url)

    def teardown(self) -> None:
        self.runner.run(self.counters.aclose())
        self.runner.run(self.redis.__aexit__(None, None, None))
        self.runner.close()

    @rule(attempt=attempts)
    def take(self, attempt: tuple[Quota, str, int, bool]) -> None:
        quota, key, cost, partly = attempt
        standing = self.runner.run(self.counters.take(quota, key, cost, partly=partly))
        expected = self.oracle.take(quota, key, cost, round(standing.now * 1_000), partly=partly)
        assert (standing.granted, standing.used) == (expected.granted, expected.used)
        assert tuple(round(left * 1_000) for left in standing.left) == expected.left_ms
        assert self.counters.failures == 0

    @rule(milliseconds=pauses)
    def pass_time(self, milliseconds: int) -> None:
        self.oracle.pass_time(milliseconds)
        for key in KEYS:
            for name in self.server.command("HKEYS", f"tbgw:{{key:{key}}}"):
                if name.startswith("end"):
                    self.server.command("HINCRBY", f"tbgw:{{key:{key}}}", name, -milliseconds)


class TestCountingInRedis(CountingInRedis.TestCase):
    settings = settings(
        max_examples=10, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )

    @pytest.fixture(autouse=True)
    def _needs(self, patient: None) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")


async def test_two_processes_share_what_is_left(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    other = RedisCounters(server.secret_url)
    standings = await asyncio.gather(*((counters, other)[n % 2].take(HOURLY, "a") for n in range(70)))
    assert sum(standing.granted for standing in standings) == 20
    assert (await other.take(HOURLY, "a")).used == (20, 20)
    await other.aclose()


async def test_the_clock_of_redis_counts(patient: None, server: RedisServer, counters: RedisCounters) -> None:
    before = server.command("TIME")
    standing = await counters.take(HOURLY, "a")
    after = server.command("TIME")
    first, last = [int(seconds) + int(micros) / 1e6 for seconds, micros in (before, after)]
    assert first - 0.001 <= standing.now <= last


async def test_a_replica_with_another_clock_makes_no_window_longer(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    quota = parse_quota("key", "5/minute")
    await counters.take(quota, "a")
    server.command("HINCRBY", "tbgw:{key:a}", "end60000", 86_400_000)
    assert (await counters.take(quota, "a")).left == (60.0,)


async def test_counts_end_by_themselves_and_not_before_their_longest_window(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    await counters.take(parse_quota("key", "5/second;5/hour"), "a")
    # A process that does not know the long window yet must not cut it short.
    await counters.take(parse_quota("key", "5/second"), "a")
    assert 3_500_000 < server.command("PTTL", "tbgw:{key:a}") <= 3_600_000
    await counters.take(parse_quota("key", "5/second"), "b")
    assert 0 < server.command("PTTL", "tbgw:{key:b}") <= 1_000


async def test_a_restarted_redis_that_lost_the_script_gets_it_again(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    await counters.take(HOURLY, "a")
    server.command("SCRIPT", "FLUSH")
    standings = await asyncio.gather(*(counters.take(HOURLY, "a") for _ in range(30)))
    assert sum(standing.granted for standing in standings) == 19
    assert (counters.failures, counters.counted_locally) == (0, 0)


async def test_a_connection_that_redis_closed_is_opened_again(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    await counters.take(HOURLY, "a")
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    (connection,) = counters._pool._available_connections
    await until(connection._reader.at_eof)
    assert (await counters.take(HOURLY, "a")).used == (2, 2)
    assert counters.failures == 0


async def test_a_killed_redis_costs_nobody_an_error_and_is_found_again(
    patient: None, server: RedisServer, counters: RedisCounters, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        await counters.take(HOURLY, "a")
    server.kill()
    standings = await asyncio.gather(*(counters.take(HOURLY, "a") for _ in range(30)))
    assert sum(standing.granted for standing in standings) == 15  # From the last known count on.
    assert not counters.is_up
    assert counters.counted_locally == 30
    await server.start()
    await recovered(counters)
    assert (await counters.take(HOURLY, "a")).used == (1, 1)
    lost, back = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lost["event"], lost["level"]) == ("redis_unavailable", "error")
    assert (lost["error_type"], lost["limits"]) == ("ConnectionError", "counted in this process")
    assert (back["event"], back["level"], back["counted_locally"]) == ("redis_back", "warning", 30)


async def test_a_silent_redis_is_waited_for_once(
    patient: None, server: RedisServer, counters: RedisCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counters.check()
    server.pause()
    monkeypatch.setattr(redis_counters, "SILENCE_SECONDS", 0.025)
    standings = await asyncio.gather(*(counters.take(HOURLY, "a") for _ in range(30)))
    assert sum(standing.granted for standing in standings) == 20
    # No second exchange: who came later did not wait.
    for _ in range(50):
        await counters.take(HOURLY, "b")
    assert counters.failures == 1
    monkeypatch.setattr(redis_counters, "SILENCE_SECONDS", 10.0)
    server.resume()
    await recovered(counters)


async def test_those_who_queue_behind_a_silent_exchange_do_not_wait_for_another(
    patient: None, server: RedisServer, counters: RedisCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counters.check()
    server.pause()
    monkeypatch.setattr(redis_counters, "SILENCE_SECONDS", 0.025)
    first = asyncio.create_task(counters.take(HOURLY, "a"))
    await until(lambda: counters._exchanging is not None and not counters._waiting)
    second = asyncio.create_task(counters.take(HOURLY, "a"))
    assert {(await first).granted, (await second).granted} == {1}
    assert counters.failures == 1
    server.resume()


async def test_a_redis_that_is_far_away_is_found_again(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect takes longer than a caller would wait, or for ever: nobody has to."""
    monkeypatch.setattr(redis_counters, "RETRY_SECONDS", 0.2)
    opened = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        if opened <= 2:
            await reader.read()
            writer.close()
            return
        await asyncio.sleep(2 * redis_counters.SILENCE_SECONDS)
        port = int(server.url.rpartition(":")[2])
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(passed_on(reader, to_redis), passed_on(from_redis, writer))

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    far = await asyncio.start_server(relay, "127.0.0.1", 0)
    counters = RedisCounters(SecretStr(f"redis://127.0.0.1:{far.sockets[0].getsockname()[1]}"))
    assert (await counters.take(HOURLY, "a")).granted == 1
    assert not counters.is_up
    await asyncio.wait_for(recovered(counters), 30)
    assert opened > 2
    await counters.aclose()
    far.close()
    await far.wait_closed()


async def test_a_full_redis_is_down_though_it_answers(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    await counters.take(BOUNDLESS, "a")
    server.command("CONFIG", "SET", "maxmemory", 1)
    assert not await counters.check()
    standings = await asyncio.gather(*(counters.take(BOUNDLESS, "a") for _ in range(10)))
    assert [standing.used for standing in standings] == [(2 + n,) for n in range(10)]
    server.command("CONFIG", "SET", "maxmemory", 0)
    await recovered(counters)
    assert (await counters.take(BOUNDLESS, "a")).used == (2,)


async def test_a_read_only_replica_is_down_though_it_answers(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    server.command("REPLICAOF", "127.0.0.1", 1)
    assert (await counters.take(BOUNDLESS, "a")).granted == 1
    assert counters.is_up is False
    assert await counters.check() is False
    assert counters.failures >= 2
    server.command("REPLICAOF", "NO", "ONE")
    await recovered(counters)


async def test_a_wrong_type_or_a_wrong_password_is_no_fault_of_the_caller(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    server.command("SET", "tbgw:{key:a}", "something else")
    assert (await counters.take(HOURLY, "a")).granted == 1
    server.command("CONFIG", "SET", "requirepass", "secret")
    stranger = RedisCounters(server.secret_url)
    assert (await stranger.take(HOURLY, "b")).granted == 1
    assert not stranger.is_up
    await stranger.aclose()


async def test_a_caller_who_leaves_disturbs_no_other(
    patient: None, server: RedisServer, counters: RedisCounters
) -> None:
    leaving = asyncio.create_task(counters.take(HOURLY, "a"))
    staying = asyncio.create_task(counters.take(HOURLY, "a"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).used == (2, 2)
    assert counters.is_up


async def test_closing_answers_those_who_wait(server: RedisServer, counters: RedisCounters) -> None:
    server.pause()
    waiting = asyncio.create_task(counters.take(HOURLY, "a"))
    await until(lambda: counters._exchanging is not None)
    await counters.aclose()
    assert (await waiting).granted == 1
    server.resume()


def test_the_oracle_is_not_trivial() -> None:
    """Each quota refuses something of what the machine may ask."""
    for quota in QUOTAS:
        oracle = Oracle()
        assert 0 in {oracle.take(quota, "a", 1, 0, partly=False).granted for _ in range(20)}
