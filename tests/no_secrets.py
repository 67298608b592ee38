"""A pytest plugin: a key or a token in what a test printed, logged or was answered fails the run."""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What the tests use as secrets, and the two shapes that others have.
SECRETS = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]{8,}\."  # a JWT
    r"|tbg_[0-9A-Za-z]+_[0-9A-Za-z]{20,}"  # a key of this gateway
    r"|test-key-with-all-the-scopes-0001|another-secret-word|proxy-secret"
    r"|a-key-for-the-served-gateway-0001|the-only-key-of-this-gateway|secret-of-the-key-named-\w"
)


def leaks_in(text: str) -> list[str]:
    """Return where secrets begin, without the secrets."""
    return [
        f"...{text[max(0, found.start() - 60) : found.start()]}<secret>" for found in SECRETS.finditer(text)
    ]


class Watched:
    """An application whose answers are read along, headers and bodies."""

    def __init__(self, app: ASGIApp, leaks: list[str]) -> None:
        self.app, self.leaks = app, leaks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def reading(message: Message) -> None:
            parts: Iterable[Any] = (
                message.get("body", b""),
                *(value for _, value in message.get("headers", ())),
            )
            for part in parts:
                self.leaks += leaks_in(bytes(part).decode("latin-1"))
            await send(message)

        await self.app(scope, receive, reading)


class LeaksFail:
    """Collects what was found, in the process that reports."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        leaks = [leak for _, text in report.sections for leak in leaks_in(text)]
        if leaks:
            self.found.setdefault(report.nodeid, []).extend(leaks)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid, leaks in self.found.items():
            for leak in leaks:
                terminalreporter.write_line(f"A SECRET in the output of {nodeid}: {leak}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LeaksFail(), "leaks-fail")
