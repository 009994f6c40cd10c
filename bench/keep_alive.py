"""Implements an HTTP client that keeps connections open and does little work per request.

The client takes requests as bytes, and returns the status of each answer and the time at which the
answer was complete. A connection has at most one unanswered request. If all connections are busy,
the client opens a new connection, so no request waits for a free connection.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

NO_ANSWER: Final = 0
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"

Answered = Callable[[int, float], None]
"""Takes the status (``NO_ANSWER`` for a lost connection), and the time from ``perf_counter``."""


def whole_answer(received: bytes) -> int | None:
    """Return the status of an answer; ``None`` while a part of the answer is missing."""
    head_ends = received.find(_END_OF_HEAD)
    if head_ends < 0:
        return None
    head = received[:head_ends].lower()
    # The ledger's programs send a length with every body, so an answer without a length has no
    # body.
    _, found, rest = head.partition(_LENGTH)
    length = int(rest.partition(b"\r\n")[0]) if found else 0
    if len(received) < head_ends + len(_END_OF_HEAD) + length:
        return None
    return int(head[9:12])


class _Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, free: list["_Connection"]) -> None:
        self._free = free
        self._received = b""
        self._answered: Answered | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, answered: Answered) -> None:
        self._answered = answered
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        self._received += data
        status = whole_answer(self._received)
        if status is not None:
            self._received = b""
            # The connection used last is reused first, so that surplus connections stay idle.
            self._free.append(self)
            self._end(status, now_s)

    def connection_lost(self, _error: Exception | None) -> None:
        if self in self._free:
            self._free.remove(self)
        self._end(NO_ANSWER, time.perf_counter())

    def _end(self, status: int, now_s: float) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, now_s)


class Client:
    """The connections to one server on this machine; the client needs a running event loop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[_Connection] = []
        self._opened: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self, connections: int) -> None:
        """Open connections in advance."""
        for _ in range(connections):
            self._free.append(await self._connect())

    def send(self, request: bytes, answered: Answered) -> None:
        """Send a request now, on a free connection or on a new one."""
        if self._free:
            self._free.pop().send(request, answered)
            return
        task = asyncio.get_running_loop().create_task(self._send_on_new(request, answered))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def ask(self, request: bytes) -> tuple[int, float]:
        """Send a request; return the answer's status, and the time of the answer's last byte."""
        answer: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()
        self.send(request, lambda status, now_s: answer.set_result((status, now_s)))
        return await answer

    def close(self) -> None:
        """Close every connection."""
        for connection in self._opened:
            connection.transport.close()

    async def _send_on_new(self, request: bytes, answered: Answered) -> None:
        try:
            connection = await self._connect()
        except OSError:
            answered(NO_ANSWER, time.perf_counter())
            return
        connection.send(request, answered)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._free), "127.0.0.1", self._port
        )
        self._opened.append(connection)
        return connection
