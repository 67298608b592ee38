"""What an answer is written to: fewer system calls than uvicorn would make."""

import asyncio


class AnswerTransport:
    """Sends the head of an answer with the first piece of its body: each write is a system call of 25 us."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = b""

    def write(self, data: bytes) -> None:
        """Hold the first piece until the second, or until the end of this turn of the loop."""
        if self._head == b"":
            self._head = data
            self._loop.call_soon(self._flush)
        elif self._head is None:
            self._transport.write(data)
        else:
            head, self._head = self._head, None
            self._transport.writelines((head, data))

    def close(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection is on its way out."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._head = None
