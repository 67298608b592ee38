"""Passwords: argon2 in threads of its own, so that a log-in never stops the event loop."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from examples.smart_home.errors import Overloaded

#: One hash takes 160 ms of CPU and 64 MiB: more at once would only slow each other and everything else.
AT_ONCE = 2
#: Three seconds of work; whoever comes then is told to come back.
MOST_WAITING = 40

Result = TypeVar("Result")


class Passwords:
    """Hashes and verifies, two at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        # Verified for addresses that nobody signed up with, so that both take the same time.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return what to store."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether it is the password; without ``stored`` the answer is no, after the same time."""

        def check() -> bool:
            try:
                return self._hasher.verify(stored or self._nobody, password)
            except (VerifyMismatchError, InvalidHashError):
                return False

        return await self._run(check) and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= MOST_WAITING:
            raise Overloaded(retry_after=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let running work end and take no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
