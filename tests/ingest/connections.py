"""Sends bytes to ingress on bare connections, and reads the answers."""

import asyncio
import contextlib

from ingest.app import create_app
from ingest.limits import Limits
from tests.fakes import FakeLog
from tests.ingest.conftest import PATH, serving, settings, signed

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING = GET[:-2] + b"Connection: close\r\n\r\n"
ALIVE = b'{"status":"alive"}'


def delivery(body: bytes, *headers: bytes) -> bytes:
    """Return the request that delivers a body, with a valid signature and further headers."""
    usual = signed(body) | {"Host": "x", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in usual.items()).encode()
    lines += b"".join(line + b"\r\n" for line in headers)
    return f"POST {PATH} HTTP/1.1\r\n".encode() + lines + b"\r\n" + body


@contextlib.asynccontextmanager
async def connecting(log=None, handler=None, **limits):
    """Serve ingress with these limits; yield a function that opens a connection to ingress.

    If ``handler`` is given, it answers the deliveries instead of ingress's own handler.
    """
    app = create_app(settings(), log or FakeLog())
    if handler is not None:
        app.state.direct = handler
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", address.rpartition(":")[2])
        writers.append(writer)
        return reader, writer

    async with serving(app, Limits(**limits)) as address:
        try:
            yield connect
        finally:
            for writer in writers:
                writer.transport.abort()


async def answer_to(reader, writer, *pieces: bytes) -> bytes:
    """Send a request piece by piece; return the head and body of the answer."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        # The pause makes the server read each piece separately.
        await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.partition(b":")[2])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length:")
        ]
        return head + await reader.readexactly(length)


async def said(connect, raw: bytes, within_s: float = 10) -> bytes:
    """Send these bytes; return all bytes that arrive until the server closes."""
    reader, writer = await connect()
    writer.write(raw)
    try:
        async with asyncio.timeout(within_s):
            return await reader.read()
    finally:
        # Without this abort, the server would wait for the client to close the connection.
        writer.transport.abort()
