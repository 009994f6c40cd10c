"""Attacks a server with slow or endless requests, and with connections that end too early.

Input: a target, and a duration. Output: the number of connections. All answers are checked.
Invariant: an attacker whose connection is closed opens a new connection at once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from tests.fuzz.answers import UndocumentedError, answers_in
from tests.fuzz.target import Target, connect

_POST: Final = b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_CHUNKED: Final = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK: Final = _CHUNKED + b"2\r\n{}\r\n0\r\n"
_GET: Final = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
_BLOCK: Final = 64 * 1024
_DRIP_S: Final = 0.25


class Attack(NamedTuple):
    """One kind of attack, carried out by ``attackers`` clients at the same time.

    ``most_mb`` is the limit for ingress' memory during the attack; an idle ingress has about 55 MB.
    """

    name: str
    attackers: int
    once: Callable[[Target], Awaitable[bytes]]
    most_mb: int = 120


async def _drip(target: Target, opening: bytes, drop: bytes) -> bytes:
    """Send the opening, then slowly one drop at a time, until the server closes the connection."""
    reader, writer = await connect(target.port)
    heard = asyncio.create_task(_hear(reader))
    try:
        writer.write(opening)
        while not heard.done() and not writer.is_closing():
            await asyncio.wait([heard], timeout=_DRIP_S)
            writer.write(drop)
        return await heard
    finally:
        heard.cancel()
        writer.transport.abort()


async def _pour(target: Target, opening: bytes, block: bytes, *, hear: bool = True) -> bytes:
    """Send the opening, then the same block repeatedly, as fast as the server accepts data."""
    reader, writer = await connect(target.port)
    heard = asyncio.create_task(_hear(reader) if hear else asyncio.sleep(3600, b""))
    said = asyncio.create_task(_say(writer, opening, block))
    try:
        await asyncio.wait([heard, said], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([heard], timeout=_DRIP_S)
        return heard.result() if heard.done() else b""
    finally:
        heard.cancel()
        said.cancel()
        writer.transport.abort()


async def _say(writer: asyncio.StreamWriter, opening: bytes, block: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(opening)
        while not writer.is_closing():
            writer.write(block)
            await writer.drain()


async def _hear(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes the connection; return about the first ``_BLOCK`` bytes."""
    received = bytearray()
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_BLOCK):
            if len(received) < _BLOCK:
                received += chunk
    return bytes(received)


async def _go_away(target: Target, raw: bytes, *, politely: bool) -> bytes:
    """Send bytes, then either close the sending half of the connection, or reset the connection."""
    if politely:
        return await target.exchange(raw, half_close=True, within_s=20)
    _, writer = await connect(target.port)
    writer.write(raw)
    await asyncio.sleep(0)
    writer.transport.abort()
    return b""


_MIB: Final = b" " * (1024 * 1024 - 1)
_LARGE: Final = _POST + b"Content-Length: %d\r\n\r\n" % 2**20
_ENDLESS: Final = _POST + b"Content-Length: %d\r\n\r\n" % 2**40
_NOWHERE: Final = _ENDLESS.replace(b"/webhooks/plexy", b"/elsewhere")
_NO_JSON: Final = _ENDLESS.replace(b"application/json", b"text/plain")

ATTACKS: Final = (
    Attack("idle connections", 1500, lambda t: _drip(t, b"", b"")),
    Attack("slow heads", 500, lambda t: _drip(t, b"", b"P")),
    Attack("slow header lines", 500, lambda t: _drip(t, _POST, b"X")),
    Attack("slow headers", 500, lambda t: _drip(t, _POST, b"A: b\r\n")),
    Attack("slow bodies", 1200, lambda t: _drip(t, _POST + b"Content-Length: 9999\r\n\r\n", b" ")),
    # The limit covers the bodies (64 MB), a second copy of the bodies while their parts are joined,
    # and the allocator's overhead.
    Attack("large bodies without end", 100, lambda t: _drip(t, _LARGE + _MIB, b""), most_mb=300),
    Attack("large bodies declared", 300, lambda t: _drip(t, _LARGE, b" ")),
    Attack("chunks without end", 20, lambda t: _pour(t, _CHUNKED, b"1\r\n \r\n" * 8192)),
    Attack("a chunk without end", 50, lambda t: _drip(t, _CHUNKED + b"ffff\r\n", b" ")),
    Attack("a chunk size without end", 20, lambda t: _pour(t, _CHUNKED, b"0" * _BLOCK)),
    Attack("an extension without end", 20, lambda t: _pour(t, _CHUNKED + b"2;", b"a" * _BLOCK)),
    Attack("a trailer name, one sender", 1, lambda t: _pour(t, _LAST_CHUNK, b"a" * _BLOCK)),
    Attack("a trailer name without end", 20, lambda t: _pour(t, _LAST_CHUNK, b"a" * _BLOCK)),
    Attack(
        "a trailer value without end", 20, lambda t: _pour(t, _LAST_CHUNK + b"A: ", b"b" * _BLOCK)
    ),
    Attack("trailers without end", 20, lambda t: _pour(t, _LAST_CHUNK, b"A: b\r\n" * 8192)),
    Attack("slow trailers", 500, lambda t: _drip(t, _LAST_CHUNK, b"A: b\r\n")),
    Attack("a body to an unknown path", 20, lambda t: _pour(t, _NOWHERE, b" " * _BLOCK)),
    Attack("a body too large", 20, lambda t: _pour(t, _ENDLESS, b" " * _BLOCK)),
    Attack("a body that is not JSON", 20, lambda t: _pour(t, _NO_JSON, b" " * _BLOCK)),
    Attack("header flood", 20, lambda t: _pour(t, _POST, b"A: b\r\n" * 8192)),
    Attack("a header without end", 20, lambda t: _pour(t, _POST + b"A: ", b"b" * _BLOCK)),
    Attack("a name without end", 20, lambda t: _pour(t, _POST, b"b" * _BLOCK)),
    Attack("line ends without end", 20, lambda t: _pour(t, b"", b"\r\n" * 8192)),
    Attack("a path without end", 20, lambda t: _pour(t, b"GET /", b"b" * _BLOCK)),
    Attack("pipelining", 20, lambda t: _pour(t, b"", _GET * 4096)),
    Attack("pipelining, answers not read", 20, lambda t: _pour(t, b"", _GET * 4096, hear=False)),
    Attack("noise", 20, lambda t: _pour(t, b"", bytes(range(256)) * 256)),
    Attack("half closed in a body", 20, lambda t: _go_away(t, _LARGE + b"{", politely=True)),
    Attack("reset in a body", 20, lambda t: _go_away(t, _LARGE + b"{", politely=False)),
    Attack("half closed after a request", 20, lambda t: _go_away(t, _GET, politely=True)),
)


async def carry_out(attack: Attack, target: Target, seconds: float) -> int:
    """Attack for this many seconds; return the number of connections."""
    counts = [0]
    end = asyncio.get_running_loop().time() + seconds
    tasks = [
        asyncio.create_task(_attacker(attack, target, counts)) for _ in range(attack.attackers)
    ]
    try:
        while (left := end - asyncio.get_running_loop().time()) > 0:
            done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            if done:
                done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return counts[0]


async def _attacker(attack: Attack, target: Target, counts: list[int]) -> None:
    while True:
        counts[0] += 1
        try:
            received = await attack.once(target)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        if len(received) < _BLOCK:
            try:
                answers_in(received)
            except UndocumentedError as error:
                raise UndocumentedError(f"{attack.name}: {error}") from error
        await asyncio.sleep(0.01)
