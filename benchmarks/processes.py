"""Child processes: started, watched, measured by the system's own accounting, and always ended."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 3.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
TAIL_LINES = 15
#: What ends a run and its children. SIGINT too: a shell starts background jobs with it ignored.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def end_on_signals() -> None:
    """Let any of the signals end this as Ctrl-C does: with a KeyboardInterrupt."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal does not disturb the ending of the children.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def set_core_aside() -> int:
    """Keep this process, and what it starts, off one core, if there are several; return that core."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or {first})
    return first


class BenchmarkFailed(Exception):
    """Something could not be measured, for this reason."""


@dataclass(frozen=True)
class Child:
    """One server of ours with its own session, so that only we signal it."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def tail(self) -> str:
        """Return the last lines it wrote."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def cpu_seconds(self) -> float:
        """Return the CPU time that it and its descendants have used so far."""
        return sum(cpu_of(process) for process in tree_of(self.process.pid))

    def memory_now(self) -> int:
        """Return the resident bytes of it and its descendants."""
        return sum(status_bytes(process, "VmRSS") for process in tree_of(self.process.pid))

    def memory_held(self) -> int:
        """Return the bytes that it and its descendants hold, those that they share counted once."""
        return sum(_file_bytes(f"/proc/{each}/smaps_rollup", "Pss") for each in tree_of(self.process.pid))

    def memory_peak(self) -> int:
        """Return the largest resident bytes since the start or `forget_peak`."""
        return sum(status_bytes(process, "VmHWM") for process in tree_of(self.process.pid))

    def open_files(self) -> int:
        """Return how many files it and its descendants have open."""
        found = 0
        for process in tree_of(self.process.pid):
            with contextlib.suppress(OSError):
                found += len(list(Path(f"/proc/{process}/fd").iterdir()))
        return found

    def pin(self, core: int) -> None:
        """Let it and its descendants run on one core only."""
        for process in tree_of(self.process.pid):
            os.sched_setaffinity(process, {core})

    def forget_peak(self) -> None:
        """Let the peak begin anew at what is resident now."""
        for process in tree_of(self.process.pid):
            # 5 resets the peak (proc(5), clear_refs); where that is forbidden the peak counts from the start.
            with contextlib.suppress(OSError):
                Path(f"/proc/{process}/clear_refs").write_text("5", "ascii")


class Children:
    """All children of one run; leaving ends them, the newest first."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-bench-")
        self.folder = Path(self._folder.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        self._folder.cleanup()

    def stop_all(self) -> None:
        """End them, the newest first."""
        while self._children:
            self.stop(self._children[-1])

    def start_module(
        self, name: str, *arguments: str, port: int, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start `python -m ...`."""
        return self.start(name, (sys.executable, "-m", *arguments), port=port, environment=environment)

    def start(
        self, name: str, command: Sequence[str], *, port: int, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a command in an empty folder with a bare environment, so that no `.env` reaches it."""
        log = self.folder / f"{len(list(self.folder.iterdir()))}-{name}.log"
        bare = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            **(environment or {}),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                env=bare,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, port, log)
        self._children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """End a child and whatever it started."""
        self._children.remove(child)
        with contextlib.suppress(ProcessLookupError):
            child.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()


def wait_until_ready(child: Child, path: str, headers: Mapping[str, str], *, every: float = 0.02) -> None:
    """Return once the path answers 200."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise BenchmarkFailed(f"{child.name} ended at once. Its last lines:\n{child.tail()}")
        with contextlib.suppress(OSError):
            status, _ = fetch(child.port, path, headers, timeout=2.0)
            if status == 200:  # noqa: PLR2004 - HTTP's OK
                return
        time.sleep(every)
    raise BenchmarkFailed(f"{child.name} did not answer in time. Its last lines:\n{child.tail()}")


def fetch(
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    body: bytes | None = None,
    timeout: float = 60.0,
) -> tuple[int, bytes]:
    """Make one request and return status and body."""
    with connected(port, timeout=timeout) as connection:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextlib.contextmanager
def connected(port: int, *, timeout: float) -> Iterator[HTTPConnection]:
    """Lend a connection to a server of ours."""
    connection = HTTPConnection(HOST, port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def tree_of(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat_fields(int(entry.name))[1])
    tree = [pid]
    for member in tree:
        tree += [child for child, parent in parents.items() if parent == member]
    return tree


def cpu_of(pid: int) -> float:
    """Return user and system time of a process and of its children that have ended, in seconds."""
    try:
        fields = _stat_fields(pid)
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS_A_SECOND


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()


def status_bytes(pid: int, name: str) -> int:
    """Return a size in /proc/<pid>/status."""
    return _file_bytes(f"/proc/{pid}/status", name)


def _file_bytes(file: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(file).read_text("utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def machine_busy_seconds() -> float:
    """Return the CPU time that the whole machine has spent so far on anything."""
    fields = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in fields)
    return (user + nice + system + irq + softirq + steal) / TICKS_A_SECOND
