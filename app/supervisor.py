"""The first process: holds the port, and keeps workers serving on it.

Workers are forks, so that they share the memory of all code and start in a tenth of a second. The supervisor
has no event loop and no threads: it sleeps until a signal comes or a worker is ready or ends.
"""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import NamedTuple, cast

import structlog

from app.errors import ConfigurationError

log = structlog.get_logger("gateway")

FORK = multiprocessing.get_context("fork")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: At least between the start of a worker that fails and the next start, so that a fault does not spin.
RESTART_SECONDS = 1.0
FAILED = 1
NEVER = float("inf")


class Duty(NamedTuple):
    """What a worker is given: where it listens, what ends with its supervisor, what to call once it does."""

    sockets: list[socket.socket]
    lifeline: int
    tell_ready: Callable[[], None]


Work = Callable[[Duty], None]


class Generation(NamedTuple):
    """Workers that began with the same configuration."""

    number: int
    work: Work


@dataclass(eq=False)
class Worker:
    """A worker process, as its supervisor sees it."""

    process: ForkProcess
    pid: int
    news: Connection
    generation: Generation
    is_ready: bool = False
    is_leaving: bool = False
    #: When it is killed if it still runs.
    ends_by: float = NEVER
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """Serves until SIGTERM or SIGINT; SIGHUP replaces all workers, one after the other, without a gap.

    Args:
        sockets: that workers listen on; owned from now on.
        work: what a worker process runs until it is told to stop.
        reload: returns the work of those who replace them after SIGHUP; a ConfigurationError leaves all as it
            is.
        patience_seconds: after which a worker that was told to stop is killed.
        on_ready: called once all workers listen for the first time.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        work: Work,
        reload: Callable[[], Work],
        *,
        workers: int,
        patience_seconds: float,
        on_ready: Callable[[], None],
    ) -> None:
        self._sockets, self._reload, self._count = list(sockets), reload, workers
        self._patience_seconds, self._on_ready = patience_seconds, on_ready
        self._generation = self._proven = Generation(0, work)
        self._workers: list[Worker] = []
        self._is_stopping = self._was_ready = False
        self._next_start = 0.0
        self._exit_code = 0
        # Only this process keeps the writing end: workers read its end when this process is gone.
        self._lifeline, self._alive = os.pipe()
        self._signals, self._signalled = socket.socketpair()
        self._signals.setblocking(False)
        self._signalled.setblocking(False)

    def run(self) -> int:
        """Return the exit code."""
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._signalled.fileno())
        while self._workers or not self._is_stopping:
            self._settle()
            self._wait()
        return self._exit_code

    def _settle(self) -> None:
        """Start and retire workers until there are as many as there should be, none of an old generation."""
        if self._is_stopping:
            return
        while True:
            staying = [worker for worker in self._workers if not worker.is_leaving]
            outdated = [each for each in staying if each.generation.number < self._generation.number]
            if outdated and sum(worker.is_ready for worker in staying) > self._count:
                self._tell(outdated[0], signal.SIGINT)
            elif len(staying) < self._count + bool(outdated) and time.monotonic() >= self._next_start:
                self._start()
            else:
                return

    def _wait(self) -> None:
        """Wait until something happens, and note it."""
        news = {worker.news: worker for worker in self._workers if not worker.news.closed}
        ends = {worker.process.sentinel: worker for worker in self._workers}
        moments = [worker.ends_by for worker in self._workers]
        now = time.monotonic()
        if now < self._next_start:
            moments.append(self._next_start)
        moment = min(moments, default=NEVER)
        timeout = None if moment == NEVER else max(0.0, moment - now)
        for source in wait([self._signals, *news, *ends], timeout):
            if isinstance(source, Connection):
                self._hear(news[source])
            elif isinstance(source, int):
                self._bury(ends[source])
            else:
                for number in self._signals.recv(64):
                    self._obey(number)
        for worker in self._workers:
            if time.monotonic() >= worker.ends_by:
                log.error("worker_killed", pid=worker.pid, reason="it did not stop in time")
                worker.process.kill()
                worker.ends_by = NEVER

    def _start(self) -> None:
        reading, writing = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._work, args=(writing,))
        # Nobody may send it a signal that this process would take for its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        writing.close()
        self._workers.append(Worker(process, cast("int", process.pid), reading, self._generation))

    def _work(self, writing: Connection) -> None:
        """Serve; in the worker process."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(self._alive)

        def tell_ready() -> None:
            writing.send(None)
            writing.close()

        self._generation.work(Duty(self._sockets, self._lifeline, tell_ready))

    def _hear(self, worker: Worker) -> None:
        """Note that a worker listens, or that it ended before."""
        try:
            worker.news.recv()
        except EOFError:
            return
        finally:
            worker.news.close()
        worker.is_ready = True
        log.info("worker_ready", pid=worker.pid)
        if worker.generation.number > self._proven.number:
            self._proven = worker.generation
        if not self._was_ready and sum(each.is_ready for each in self._workers) == self._count:
            self._was_ready = True
            self._on_ready()

    def _bury(self, worker: Worker) -> None:
        """Draw the conclusions of a worker's end."""
        worker.process.join()
        worker.news.close()
        self._workers.remove(worker)
        if worker.is_leaving:
            return
        log.error("worker_ended", pid=worker.pid, exit_code=worker.process.exitcode)
        self._next_start = worker.started + RESTART_SECONDS
        if worker.is_ready:
            return
        if not self._was_ready:
            # It would fail in the same way again.
            self._exit_code = worker.process.exitcode or FAILED
            self._stop()
        elif self._generation != self._proven:
            log.error("reload_failed", reason="a new worker did not start; the others stay")
            self._generation = self._proven

    def _obey(self, number: int) -> None:
        if number != signal.SIGHUP:
            self._stop()
        elif not self._is_stopping:
            try:
                work = self._reload()
            except ConfigurationError as error:
                log.error("reload_failed", reason="configuration", faults=str(error).splitlines())
            else:
                log.info("reloading", workers=self._count)
                self._generation = Generation(self._generation.number + 1, work)

    def _stop(self) -> None:
        """Tell all workers to stop; the port is free once the last one has stopped listening."""
        if not self._is_stopping:
            self._is_stopping = True
            log.info("gateway_stopping", workers=len(self._workers))
            for each in self._sockets:
                each.close()
            for worker in self._workers:
                self._tell(worker, signal.SIGTERM)

    def _tell(self, worker: Worker, number: signal.Signals) -> None:
        if not worker.is_leaving:
            worker.is_leaving = True
            worker.ends_by = time.monotonic() + self._patience_seconds
            os.kill(worker.pid, number)
