"""Sends answers that are late, lost, cut or garbled."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from tb_simulator.answers import JSON, Answer, error_answer
from tb_simulator.faults import Fault

Message = MutableMapping[str, Any]

_NOT_JSON = b'{"data":[{"id":'


async def send_faulty(
    faults: list[Fault],
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
    true_answer: Callable[[], Awaitable[Answer]],
) -> None:
    """Answer one call through the faults that strike it."""
    await asyncio.sleep(sum(fault.seconds for fault in faults if fault.kind not in {"stall", "labour"}))
    by_kind = {fault.kind: fault for fault in faults}
    labour = by_kind.get("labour")
    if labour is not None:
        needed = _seconds_of_labour(labour, scope["query_string"])
        await asyncio.sleep(min(needed, labour.seconds))
        if needed > labour.seconds:
            by_kind["status"] = Fault("status", status=500, body="Request timeout", content_type="text/plain")
    reset = by_kind.get("reset")
    if reset is not None:
        if reset.after:
            await true_answer()
        await _break(receive, hard=True)
        return
    answer = _altered(by_kind, await true_answer() if not by_kind.keys() & {"status", "malformed"} else None)
    length = str(len(answer.body)).encode()
    headers = [(b"content-length", length), *answer.headers]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await _send_body(by_kind, answer.body, receive, send)


def _seconds_of_labour(fault: Fault, query_string: bytes) -> float:
    """Return how long a history call takes; others take no time."""
    query = dict(parse_qsl(query_string.decode()))
    if not {"startTs", "endTs", "limit", "keys"} <= query.keys():
        return 0.0
    points = int(query["limit"]) * len(query["keys"].split(","))
    length = int(query["endTs"]) - int(query["startTs"])
    return (points / fault.points_per_second if fault.points_per_second else 0.0) + (
        length / fault.ms_per_second if fault.ms_per_second else 0.0
    )


async def _send_body(
    by_kind: dict[str, Fault],
    body: bytes,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    stall = by_kind.get("stall")
    if stall or "truncate" in by_kind:
        half = len(body) // 2
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        body = body[half:]
    if stall:
        await asyncio.sleep(stall.seconds)
    if "truncate" in by_kind:
        await _break(receive, hard=False)
        return
    await send({"type": "http.response.body", "body": body})


async def refuse_websocket(
    faults: list[Fault],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Refuse a WebSocket's handshake: late, by a reset, or with a status."""
    await asyncio.sleep(sum(fault.seconds for fault in faults))
    by_kind = {fault.kind: fault for fault in faults}
    if "reset" in by_kind:
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is not None:
            reset_transport(transport)
        return
    answer = _status_answer(by_kind.get("status") or Fault("status"))
    headers = [(b"content-length", str(len(answer.body)).encode())]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _altered(by_kind: dict[str, Fault], answer: Answer | None) -> Answer:
    if "malformed" in by_kind:
        body = by_kind["malformed"].body
        answer = Answer(200, _NOT_JSON if body is None else body.encode(), JSON)
    elif "status" in by_kind:
        answer = _status_answer(by_kind["status"])
    if answer is None:
        raise ValueError("no answer to alter")
    if "content_type" in by_kind:
        answer = answer._replace(content_type=by_kind["content_type"].content_type.encode())
    return answer


def _status_answer(fault: Fault) -> Answer:
    if fault.body is not None:
        return Answer(fault.status, fault.body.encode(), fault.content_type.encode())
    if fault.status == 429:  # noqa: PLR2004 - ThingsBoard's own, without Retry-After
        return error_answer(429, "Too many requests for current tenant!", 33)
    return error_answer(fault.status, "Simulated fault", 2)


async def _break(receive: Callable[[], Awaitable[Message]], *, hard: bool) -> None:
    """End the connection under the answer: with a reset when ``hard``, else after what is written."""
    # The transport is no part of ASGI; uvicorn's receive is a method of the object that holds it.
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("simulated connection reset")
    if hard:
        reset_transport(transport)
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


def reset_transport(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # No lingering makes the kernel send RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
