"""Read a request's body: at most so many bytes, and only until a point in time.

In: ASGI's ``receive``. Out: the bytes as they came, or what went wrong. Never: more in memory than
the limit and one chunk of the server's.
"""

import asyncio
from enum import Enum, auto

from starlette.types import Receive


class BodyFault(Enum):
    """Why there is no body: a value, since each of them is the sender's doing."""

    TOO_LARGE = auto()
    TOO_SLOW = auto()
    DISCONNECTED = auto()


async def read_body(receive: Receive, *, limit_bytes: int, until: float) -> bytes | BodyFault:
    """Return the whole body; ``until`` is a time of the event loop's clock, in seconds."""
    try:
        async with asyncio.timeout_at(until):
            return await _read(receive, limit_bytes)
    except TimeoutError:
        return BodyFault.TOO_SLOW


async def _read(receive: Receive, limit_bytes: int) -> bytes | BodyFault:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return BodyFault.DISCONNECTED
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            return BodyFault.TOO_LARGE
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)
