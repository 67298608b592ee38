"""Programs in processes of their own, which tests may signal and kill."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
#: Seconds; the machine may be busy with other tests.
PATIENCE = 60


def program(name: str, package: str | None = None) -> str:
    """Find a program; without it the test is skipped, which the gate takes for a failure."""
    # Debian keeps the servers among them off the PATH of users.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {package or name})")
    return found


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of these tests, with these settings of a gateway and no others."""
    names = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    ours = {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": 1, **settings}
    return inherited | {name: str(value) for name, value in ours.items()}


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for something that has no event for us."""
    async with asyncio.timeout(PATIENCE):
        while not is_true():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process runs; a zombie has ended, whoever reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Process:
    """A program, and its lines as they come: a pipe that nobody reads would stop it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._spoke, self._has_ended = asyncio.Condition(), False
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, *command: str | Path, folder: Path = ROOT, environment: dict[str, str] | None = None
    ) -> Self:
        """Start it in a session of its own, so that only we signal it."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            async with self._spoke:
                self.lines.append(line.decode(errors="replace"))
                self._spoke.notify_all()
        async with self._spoke:
            self._has_ended = True
            self._spoke.notify_all()

    async def read_until(self, text: str, times: int = 1) -> str:
        """Return the line that is the first, or the second and so on, to hold this text."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        async with asyncio.timeout(PATIENCE), self._spoke:
            await self._spoke.wait_for(lambda: len(found()) >= times or self._has_ended)
            assert len(found()) >= times, self.said()
        return found()[times - 1]

    async def end(self) -> int:
        """Read the rest and return the exit code."""
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self.process.wait()

    async def kill(self) -> None:
        """Kill it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.end()

    def said(self) -> str:
        """Return all that it wrote so far."""
        return "".join(self.lines)
