"""The head of an answer leaves with the first piece of its body, and no later than this turn of the loop."""

import asyncio

from app.answer_transport import AnswerTransport


class Recorded(asyncio.Transport):
    """Notes what would be one system call each."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.sent.append(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:  # type: ignore[override]
        self.sent.append(b"".join(pieces))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


async def test_head_and_body_are_one_write() -> None:
    inner = Recorded()
    transport = AnswerTransport(inner, asyncio.get_running_loop())
    transport.write(b"head")
    assert inner.sent == []
    transport.write(b"body")
    transport.write(b"more")
    await asyncio.sleep(0)
    assert inner.sent == [b"headbody", b"more"]


async def test_a_head_without_a_body_does_not_wait() -> None:
    inner = Recorded()
    transport = AnswerTransport(inner, asyncio.get_running_loop())
    transport.write(b"head")
    await asyncio.sleep(0)
    assert inner.sent == [b"head"]
    transport.write(b"body")
    assert inner.sent == [b"head", b"body"]


async def test_closing_sends_what_was_held() -> None:
    inner = Recorded()
    transport = AnswerTransport(inner, asyncio.get_running_loop())
    transport.write(b"head")
    transport.close()
    assert inner.sent == [b"head"]
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert inner.sent == [b"head"]
