"""The stage alone: whatever is raised inside, at whatever moment."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.context import KEY, RequestContext
from app.draining import DRAINING, Draining
from app.errors import NotFound
from app.middleware.error_sanitiser import ErrorSanitiser
from app.security_events import Note, SecurityLog

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}


class Stage:
    """One request to the stage, in front of something that sends these messages and then raises this."""

    def __init__(self, *messages: Message, error: BaseException | None = None, kind: str = "http") -> None:
        self.messages, self.error = messages, error
        self.context = RequestContext("request-0001")
        self.scope: dict[str, Any] = {"type": kind, "headers": [], "path": "/", KEY: self.context}
        self.sent: list[Message] = []
        self.stage = ErrorSanitiser(self.app, security_log=SecurityLog(lambda _: "/a/{b}"))

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.messages:
            await send(message)
        if self.error is not None:
            raise self.error

    async def __call__(self) -> list[Message]:
        async def receive() -> Message:
            raise AssertionError

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.stage(self.scope, receive, send)
        return self.sent


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_an_answer_that_has_begun_is_not_completed() -> None:
    """Without its last part no client takes it for whole."""
    assert await Stage(START, PART, error=RuntimeError("late"))() == [START, PART]


async def test_a_websocket_is_closed_with_our_fault() -> None:
    accept: Message = {"type": "websocket.accept"}
    sent = await Stage(accept, error=RuntimeError("late"), kind="websocket")()
    assert sent == [accept, {"type": "websocket.close", "code": 1011}]


async def test_a_websocket_that_was_refused_already_is_left_alone() -> None:
    refusal: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}
    sent = await Stage(refusal, error=RuntimeError("late"), kind="websocket")()
    assert sent[0] == refusal
    assert "websocket.http.response.start" not in [message["type"] for message in sent[1:]]


async def test_a_bug_is_logged_with_its_request_and_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    start, body = await Stage(error=RuntimeError("hunter2"))()
    assert (start["status"], b"hunter2" in body["body"]) == (500, False)
    (event,) = events(capsys)
    assert (event["event"], event["level"]) == ("internal_error", "error")
    assert event["request_id"] == "request-0001"
    # The traceback names the bug; what the exception says may hold a secret.
    told = json.dumps(event)
    assert ("RuntimeError" in told, "hunter2" in told) == (True, False)


async def test_an_expected_error_is_no_line_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    start, _ = await Stage(error=NotFound())()
    assert (start["status"], events(capsys)) == (404, [])


async def test_a_caller_who_has_left_is_answered_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert (await Stage(error=ClientDisconnect())(), events(capsys)) == ([], [])


@pytest.mark.parametrize("state", [None, {}, {DRAINING: Draining()}], ids=["no state", "no drain", "serving"])
async def test_what_is_cancelled_stays_cancelled(state: dict[str, Any] | None) -> None:
    request = Stage(error=asyncio.CancelledError())
    if state is not None:
        request.scope["state"] = state
    with pytest.raises(asyncio.CancelledError):
        await request()
    assert request.sent == []


async def test_what_is_cancelled_by_the_end_of_the_gateway_is_told_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draining = Draining()
    draining.begin()
    request = Stage(error=asyncio.CancelledError())
    request.scope["state"] = {DRAINING: draining}
    start, body = await request()
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"1"
    told = json.loads(body["body"])
    assert told["error_code"] == "OVERLOADED"
    assert told["message"] == (
        "The gateway is stopping, and this request took too long. "
        "What it was to change may have been changed."
    )
    assert events(capsys) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stage(START),
        lambda: Stage(START, error=RuntimeError("late")),
        lambda: Stage(error=NotFound()),
        lambda: Stage(error=ClientDisconnect()),
        Stage,
    ],
    ids=["answered", "cut", "refused", "left", "nothing sent"],
)
async def test_what_was_noted_is_written_once_however_it_ends(
    make: Callable[[], Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    request = make()
    request.context.notes = [Note("noted", {"reason": "because"})]
    await request()
    noted = [event for event in events(capsys) if event["event"] == "noted"]
    assert [(event["reason"], event["route"]) for event in noted] == [("because", "/a/{b}")]


async def test_it_is_written_before_the_answer_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[list[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY].notes.append(Note("noted", {}))
        await send(START)

    async def send(_: Message) -> None:
        seen.append([event["event"] for event in events(capsys)])

    async def receive() -> Message:
        raise AssertionError

    stage = ErrorSanitiser(app, security_log=SecurityLog(lambda _: None))
    await stage({"type": "http", "headers": [], KEY: RequestContext("request-0001")}, receive, send)
    assert seen == [["noted"]]


async def test_the_lifespan_is_none_of_its_business() -> None:
    """It has no context, and the server wants to know what goes wrong there."""
    called: list[tuple[Any, ...]] = []

    async def app(*given: Any) -> None:
        called.append(given)
        raise RuntimeError

    async def send(_: Message) -> None:
        raise AssertionError

    receive: Callable[[], Awaitable[Message]] = lambda: send({})  # type: ignore[assignment, return-value]  # noqa: E731
    scope: Scope = {"type": "lifespan"}
    with pytest.raises(RuntimeError):
        await ErrorSanitiser(app, security_log=SecurityLog(lambda _: None))(scope, receive, send)
    assert called == [(scope, receive, send)]
