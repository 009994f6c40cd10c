"""Reads a request's body within limits on size, time and memory.

Input: ASGI's ``receive``. Output: the unchanged bytes, or a ``BodyFault``. Invariant: while a body
arrives, it never takes more memory than its limit plus one of the server's chunks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum, auto

from starlette.types import Receive

from ingest.load import BodyMemory


class BodyFault(Enum):
    """The reason why no body was read: a value, not an exception, because the sender causes it."""

    TOO_LARGE = auto()
    TOO_SLOW = auto()
    NO_ROOM = auto()
    DISCONNECTED = auto()


@contextlib.asynccontextmanager
async def read_body(
    receive: Receive, memory: BodyMemory, *, limit_bytes: int, until: float
) -> AsyncIterator[bytes | BodyFault]:
    """Yield the whole body, or a fault; the body's memory stays reserved until the block ends.

    ``until`` is a time on the event loop's clock, in seconds.
    """
    body = _Body(memory, limit_bytes)
    try:
        try:
            async with asyncio.timeout_at(until):
                read = await body.read(receive)
        except TimeoutError:
            read = BodyFault.TOO_SLOW
        yield read
    finally:
        memory.release(body.size)


class _Body:
    """A body that is arriving; ``size`` is the number of bytes reserved for it."""

    def __init__(self, memory: BodyMemory, limit_bytes: int) -> None:
        self.size = 0
        self._memory = memory
        self._limit_bytes = limit_bytes
        # This array takes little more than the body; a list of tiny chunks would take many times
        # as much.
        self._bytes = bytearray()

    async def read(self, receive: Receive) -> bytes | BodyFault:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return BodyFault.DISCONNECTED
            fault = self._take(message.get("body", b""))
            if fault is not None:
                return fault
            more = message.get("more_body", False)
        # Without this release, a delivery would take twice its size until it is answered.
        whole, self._bytes = bytes(self._bytes), bytearray()
        return whole

    def _take(self, chunk: bytes) -> BodyFault | None:
        size = self.size + len(chunk)
        if size > self._limit_bytes:
            return BodyFault.TOO_LARGE
        if not self._memory.grow(self.size, size):
            return BodyFault.NO_ROOM
        self.size = size
        self._bytes += chunk
        return None
