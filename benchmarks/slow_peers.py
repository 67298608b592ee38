"""`python -m benchmarks.slow_peers`: a thousand slow peers at once, and what good callers notice of them.

Needs slowhttptest (Debian: `apt-get install slowhttptest`). Good callers send at a fixed rate; their p99 is
taken without and with the slow ones, in turns. Takes about six minutes.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.background import Background
from benchmarks.bench import CALLER, KEY, LIST_TARGET, QUICK, Bench
from benchmarks.figures import percentile
from benchmarks.load import Specification, run
from benchmarks.processes import HOST, MIB, BenchmarkFailed, Child, Children, set_core_aside

PEERS = 1_000
#: Slow connections opened in a second: what good callers notice is to be their being there, not their coming.
ARRIVALS = 200
GOOD_RATE, GOOD_CONNECTIONS, GOOD_SECONDS = 100.0, 8, 4.5
ROUNDS = 2
#: For the thousand to come, and until all must have been cut: a WebSocket's peer has 42 s.
ARRIVAL_SECONDS, CUT_SECONDS = 5.0, 60.0
SAMPLE_SECONDS = 0.5

#: It takes no headers of ours, so the key comes with one that it does: no body is read of those without.
ACCEPT = f"*/*\r\nX-API-Key: {KEY}"
PACE = ("-c", str(PEERS), "-r", str(ARRIVALS), "-l", "60", "-p", "3")
#: An attacker does not sit on the gateway's machine: it gets what the others leave.
SLOW = ("chrt", "--idle", "0", "slowhttptest", *PACE, "-v", "1", "-m", ACCEPT)
MODES = {
    "slow headers": ("-H", "-i", "5"),
    "slow body": ("-B", "-i", "5", "-s", "8192", "-f", "application/json"),
    "slow read": ("-X", "-w", "1", "-y", "512", "-n", "2", "-z", "5", "-k", "3"),
    "ranges": ("-R", "-t", "HEAD", "-a", "10", "-b", "3000", "-i", "5"),
}
UPGRADE = (
    f"GET /api/v1/tb/ws HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {KEY}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    f"{base64.b64encode(bytes(16)).decode()}\r\n\r\n"
).encode()

Attack = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Row:
    """What one kind of slow peer did."""

    kind: str
    p99_before: float
    p99_meanwhile: float
    files: int
    memory: float
    cut_after: float

    def __str__(self) -> str:
        before, meanwhile = self.p99_before * 1000, self.p99_meanwhile * 1000
        return (
            f"| {self.kind} | {before:.1f} ms | {meanwhile:.1f} ms | {meanwhile / before:.1f} "
            f"| {self.files} | {self.memory:.0f} MiB | {self.cut_after:.0f} s |"
        )


class Watch(Background):
    """The most files and memory that a server had while this was open."""

    def __init__(self, server: Child) -> None:
        super().__init__(SAMPLE_SECONDS)
        self._server = server
        self.files = self.memory = 0

    def act(self) -> None:
        """Look once."""
        self.files = max(self.files, self._server.open_files())
        self.memory = max(self.memory, self._server.memory_now())


def good_p99(port: int) -> float:
    """Return the p99 of good callers in seconds; each of them was answered."""
    specification = Specification(
        port, LIST_TARGET, CALLER, connections=GOOD_CONNECTIONS, seconds=GOOD_SECONDS, rate=GOOD_RATE
    )
    return percentile(run(specification).latencies, 0.99)


@contextlib.contextmanager
def attacked(port: int, options: Sequence[str]) -> Iterator[None]:
    """Run slowhttptest."""
    path = "/api/v1/tb/devices" if "-B" in options else "/openapi.json"
    target = f"http://{HOST}:{port}{path}"
    command = [*SLOW, *options, "-u", target]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - ours
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def held(port: int, request: bytes) -> Iterator[None]:
    """Open connections that send this and then neither say nor read anything."""
    with contextlib.ExitStack() as stack:
        for _ in range(PEERS):
            peer = stack.enter_context(socket.create_connection((HOST, port)))
            peer.sendall(request)
        yield


def measure(kind: str, gateway: Child, attack: Attack) -> Row:
    """Measure one kind: without, with, and until all of it is gone."""
    idle_files, idle_memory = gateway.open_files(), gateway.memory_now()
    before, meanwhile = [], []
    files, memory, cut_after = 0, 0, 0.0
    for _ in range(ROUNDS):
        before.append(good_p99(gateway.port))
        with Watch(gateway) as watch, attack():
            started = time.monotonic()
            time.sleep(ARRIVAL_SECONDS)
            meanwhile.append(good_p99(gateway.port))
            wait_until_cut(gateway, idle_files + GOOD_CONNECTIONS)
            cut_after = max(cut_after, time.monotonic() - started)
        files, memory = max(files, watch.files), max(memory, watch.memory)
    return Row(kind, min(before), min(meanwhile), files, (memory - idle_memory) / MIB, cut_after)


def wait_until_cut(gateway: Child, files: int) -> None:
    """Wait until so many files are open, no more."""
    ends = time.monotonic() + CUT_SECONDS
    while gateway.open_files() > files:
        if time.monotonic() > ends:
            raise BenchmarkFailed(f"slow peers were still there after {CUT_SECONDS:.0f} s")
        time.sleep(SAMPLE_SECONDS)


def main() -> int:
    """Print the table."""
    if shutil.which("slowhttptest") is None:
        sys.stderr.write("slowhttptest is not installed (Debian: apt-get install slowhttptest)\n")
        return 1
    core = set_core_aside()
    with Children() as children:
        bench = Bench(QUICK, children)
        gateway = bench.start_gateway(bench.start_stub(), STREAMS_PER_KEY=str(2 * PEERS))
        gateway.pin(core)
        good_p99(gateway.port)
        attacks: dict[str, Attack] = {
            kind: partial(attacked, gateway.port, options) for kind, options in MODES.items()
        }
        attacks["silent"] = partial(held, gateway.port, b"")
        attacks["mute WebSockets"] = partial(held, gateway.port, UPGRADE)
        sys.stdout.write("| slow peers | p99 without | p99 with | ratio | files | memory | all cut after |\n")
        sys.stdout.write("|---|---|---|---|---|---|---|\n")
        for kind, attack in attacks.items():
            if sys.argv[1:] and kind not in sys.argv[1:]:
                continue
            sys.stdout.write(f"{measure(kind, gateway, attack)}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{os.cpu_count()} cores; {PEERS} slow peers; {GOOD_RATE:.0f} good requests a second\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
