"""The command: run the load, break everything, check everything, say what was found."""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp

from benchmarks.chaos import monitoring, report
from benchmarks.chaos.callers import CROWDS, Callers
from benchmarks.chaos.readers import Reader
from benchmarks.chaos.stack import Stack
from benchmarks.chaos.tally import Event
from benchmarks.chaos.truth import (
    BULK,
    DELIVERED,
    DEVICES,
    FIRST_MS,
    SERIAL,
    SINGLE,
    STEP_MS,
    STREAMED,
    Reading,
)
from benchmarks.processes import HOST, BenchmarkFailed, Child, Children, end_on_signals, say

READERS = 6
#: The report is of a run of this length.
FULL_MINUTES = 5.0
#: When what happens, as a share of the load; never before the one before is over.
MOMENTS = (0.12, 0.32, 0.52, 0.76)
AWAY_SECONDS = 10.0
#: nginx leaves a replica that has failed alone for as long (`fail_timeout`): until then there is only one.
SETTLE_SECONDS = 5.0
CATCH_UP_SECONDS = 30.0
CALL_SECONDS = 60.0


async def follow_all(callers: Callers, readers: list[Reader], stack: Stack, minutes: float) -> list[Event]:
    """Send the load and break one thing after the other; returns when readers have heard the last points."""
    following = [asyncio.create_task(reader.follow()) for reader in readers]
    try:
        first = {device: min(callers.ledger.tracks[device, SERIAL].sent) for device in range(STREAMED)}
        for reader in readers:
            if not await reader.has_heard(first, CATCH_UP_SECONDS):
                raise BenchmarkFailed(f"a stream does not begin\n{stack.logs()}")
        callers.zero = time.monotonic()
        callers.tally.outcomes.clear()
        breaking = asyncio.create_task(break_all(callers, stack, minutes))
        await callers.run(minutes * 60)
        events = await breaking
        last = {device: max(callers.ledger.tracks[device, SERIAL].sent) for device in range(STREAMED)}
        for reader in readers:
            await reader.has_heard(last, CATCH_UP_SECONDS)
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    for reader in readers:
        for device in reader.devices.values():
            faults = callers.ledger.faults_of_stream(
                device, reader.heard[device], reader.gaps[device], until=last[device]
            )
            callers.tally.accuse("stream", faults)
    return events


async def break_all(callers: Callers, stack: Stack, minutes: float) -> list[Event]:
    """Let everything fail, one after the other."""
    scale = min(1.0, minutes / 2)
    planned: list[tuple[str, Callable[[float], Awaitable[None]]]] = [
        (report.KILLED, stack.kill_replica),
        (report.STOPPED, stack.stop_replica),
        (report.THINGSBOARD, stack.restart_thingsboard),
        (report.REDIS, stack.kill_redis),
    ]
    events = []
    for moment, (name, happen) in zip(MOMENTS, planned, strict=True):
        await asyncio.sleep(moment * minutes * 60 - callers.now())
        began = callers.now()
        say(f"💥 {began:.0f} s: {name}")
        for wait, counts in CROWDS:
            callers.crowd(counts)
            await asyncio.sleep(wait)
        await happen(AWAY_SECONDS * scale)
        await asyncio.sleep(SETTLE_SECONDS)
        events.append(Event(name, began, callers.now()))
    return events


def look_up(callers: Callers, stack: Stack) -> tuple[list[str], int]:
    """Look up in ThingsBoard all that was acknowledged; also count the commands that came more than once."""
    faults, came = [], Counter[int]()
    for device in range(DEVICES):
        stored = stack.stored(device, (SERIAL, SINGLE, BULK, DELIVERED))
        for point in stored.pop(DELIVERED, ()):
            came[(int(point["ts"]) - FIRST_MS) // STEP_MS] += int(point["value"])
        for key in (SERIAL, SINGLE, BULK):
            readings = [Reading(int(point["ts"]), point["value"]) for point in stored.get(key, ())]
            faults += callers.ledger.faults_of_series(device, key, readings, float("inf"))
    never = callers.answered_commands - came.keys()
    faults += [f"command {number} was answered and never came" for number in sorted(never)]
    return faults, sum(times > 1 for times in came.values())


async def run(stack: Stack, prometheus: Child, minutes: float, seed: int) -> report.Findings:
    """Return what was found."""
    limits = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(
        f"http://{HOST}:{stack.front}", connector=limits, timeout=timeout
    ) as session:
        callers = Callers(session, stack.ids, seed)
        await callers.prepare()
        chosen = random.Random(seed)
        readers = [
            Reader(session, callers, stack.ids, chosen.sample(range(STREAMED), 1 + number % STREAMED))
            for number in range(READERS)
        ]
        began = monitoring.wall_clock()
        events = await follow_all(callers, readers, stack, minutes)
    lost, repeated = await asyncio.to_thread(look_up, callers, stack)
    # The last scrape must have seen the end.
    await asyncio.sleep(monitoring.SCRAPE_SECONDS)
    return report.Findings(
        seconds=minutes * 60,
        tally=callers.tally,
        events=events,
        acknowledged=callers.ledger.acknowledged,
        in_doubt=callers.ledger.in_doubt,
        lost=lost,
        commands=callers.commands,
        delivered_twice=repeated,
        live=report.Live(
            readers=READERS,
            points=sum(len(heard) for reader in readers for heard in reader.heard.values()),
            breaks=sum(reader.breaks for reader in readers),
            announced=sum(reader.announced for reader in readers),
        ),
        monitored=monitoring.ask(prometheus, began, monitoring.wall_clock()),
    )


def main() -> int:
    """Run it; 1 means that something was lost, wrong, or failed without need."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description="Breaks everything under load."
    )
    parser.add_argument(
        "--minutes", type=float, default=FULL_MINUTES, help="the report is written after 5 (default) or more"
    )
    parser.add_argument("--seed", type=int, default=1, help="another load")
    given = parser.parse_args()
    end_on_signals()
    with Children() as children:
        try:
            stack = Stack(children)
            stack.start()
            prometheus = monitoring.start(children, stack.ports)
            findings = asyncio.run(run(stack, prometheus, given.minutes, given.seed))
        except (BenchmarkFailed, OSError) as error:
            say(f"❌ {error}")
            return 1
    say(report.section(findings))
    faults = findings.faults()
    for fault in faults[: report.SHOWN]:
        say(f"❌ {fault}")
    if given.minutes >= FULL_MINUTES and not faults:
        report.write(findings)
        say("📝 docs/reliability.md")
    say(f"{'❌' if faults else '✅'} {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
