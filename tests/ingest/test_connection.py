"""A connection costs a bounded amount of memory and time, and ends with an answer or in silence."""

import asyncio
import contextlib
import json
import time

import pytest

from ingest.app import create_app
from ingest.connection import Limits
from tests.fakes import FakeLog, until
from tests.ingest.conftest import PATH, event, serving, settings, signed

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ALIVE = b'{"status":"alive"}'
POST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()


@contextlib.asynccontextmanager
async def connecting(log=None, **limits):
    """Serve with these limits; yields a function that opens a bare connection."""
    app = create_app(settings(), log or FakeLog())
    async with serving(app, Limits(**limits)) as address:
        writers = []

        async def connect():
            reader, writer = await asyncio.open_connection("127.0.0.1", address.rpartition(":")[2])
            writers.append(writer)
            return reader, writer

        try:
            yield connect
        finally:
            for writer in writers:
                writer.transport.abort()


async def said(connect, raw: bytes, within_s: float = 10) -> bytes:
    """Send these bytes; return all that comes until the server closes."""
    reader, writer = await connect()
    writer.write(raw)
    async with asyncio.timeout(within_s):
        return await reader.read()


def delivery(body: bytes) -> bytes:
    headers = signed(body) | {"Host": "x", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + body


def assert_refused(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["code"] == code


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_request_is_a_problem_document_and_the_end(raw):
    async with connecting() as connect:
        assert_refused(await said(connect, raw), 400, "malformed_request")
        assert await said(connect, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"x" * 16_500 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 16_500,
        b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 16_500 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 400_000,
        b"GET /healthz HTTP/1.1\r\n" + b"a" * 400_000,
    ],
)
async def test_too_large_a_head_is_431_before_it_is_whole(raw):
    async with connecting() as connect:
        assert_refused(await said(connect, raw), 431, "head_too_large")


async def test_a_large_head_within_the_limits_is_taken():
    headers = b"".join(b"A%d: %b\r\n" % (n, b"b" * 140) for n in range(99))
    async with connecting() as connect:
        answer = await said(
            connect, b"GET /healthz HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n"
        )
    assert answer.endswith(ALIVE)


async def test_a_body_in_too_many_chunks_is_413():
    async with connecting(chunks=10) as connect:
        raw = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 11
        assert_refused(await said(connect, raw), 413, "body_too_large")


async def test_what_follows_a_delivery_and_is_no_request_costs_it_nothing():
    log = FakeLog()
    async with connecting(log) as connect:
        answer = await said(connect, delivery(event()) + b"nonsense\r\n\r\n")
    first, _, rest = answer.partition(b'{"received": true}')
    assert first.startswith(b"HTTP/1.1 200 ")
    assert_refused(rest, 400, "malformed_request")
    assert [record.value for record in log.records] == [event()]


async def test_a_request_behind_a_waiting_one_that_is_none_is_answered_after_it():
    log = FakeLog()
    log.acknowledging.clear()
    async with connecting(log) as connect:
        answering = asyncio.create_task(said(connect, delivery(event()) + b"nonsense\r\n\r\n"))
        await until(lambda: log.waiting)
        await asyncio.sleep(0.05)
        log.acknowledging.set()
        assert (await answering).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "begun", [b"", b"\r\n", b"P", POST, POST + b"Content-Length: 9\r\n\r\n", GET]
)
async def test_a_connection_that_stalls_is_closed(begun):
    async with connecting(stalled_after_s=0.3) as connect:
        began = time.monotonic()
        reader, writer = await connect()
        writer.write(begun)
        if begun.startswith(GET):
            await reader.readuntil(ALIVE)
            writer.write(b"P")
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        # The loop's clock has whole milliseconds.
        assert time.monotonic() - began >= 0.298


async def test_a_trickle_does_not_keep_a_connection():
    async with connecting(stalled_after_s=0.3) as connect:
        reader, writer = await connect()
        closed = asyncio.create_task(reader.read())
        async with asyncio.timeout(5):
            while not closed.done():
                writer.write(b"P")
                await asyncio.wait([closed], timeout=0.05)


async def test_a_kept_connection_lives_longer_than_a_stalled_one():
    async with connecting(stalled_after_s=0.2) as connect:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(ALIVE)
            await asyncio.sleep(0.3)


async def test_whoever_does_not_fetch_the_answers_is_cut_off():
    async with connecting(stalled_after_s=0.5, pipelined=10_000_000) as connect:
        _, writer = await connect()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(GET * 2000)
                    await writer.drain()


async def test_pipelined_requests_are_answered_in_order_up_to_the_limit():
    async with connecting(pipelined=16) as connect:
        reader, writer = await connect()
        writer.write(GET * 15 + b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            answers = await reader.read()
        assert answers.count(ALIVE) == 15
        assert answers.endswith(b'{"status":"ready"}')


async def test_more_than_may_be_pipelined_closes_the_connection_after_the_answers():
    async with connecting(pipelined=4) as connect:
        answers = await said(connect, GET * 1000)
        assert answers.count(b"HTTP/1.1 200 ") == answers.count(ALIVE) == 4


async def test_one_connection_too_many_takes_the_place_of_the_one_that_waits_longest():
    async with connecting(connections=3) as connect:
        oldest, second, third = [await connect() for _ in range(3)]
        # It is not the oldest any more: a request is on its way.
        oldest[1].write(b"GET /healthz")
        await asyncio.sleep(0.1)
        newest = await connect()
        newest[1].write(GET)
        await newest[0].readuntil(ALIVE)
        with contextlib.suppress(ConnectionResetError):
            assert await second[0].read() == b""
        for reader, writer, rest in ((*oldest, b" HTTP/1.1\r\n\r\n"), (*third, GET)):
            writer.write(rest)
            await reader.readuntil(ALIVE)


async def test_a_delivery_that_waits_for_kafka_is_never_thrown_out():
    log = FakeLog()
    log.acknowledging.clear()
    async with connecting(log, connections=2) as connect:
        reader, writer = await connect()
        writer.write(delivery(event()))
        await until(lambda: log.waiting)
        for _ in range(5):
            await connect()
        log.acknowledging.set()
        assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 200 ")


async def test_an_upgrade_is_answered_in_http_and_ends_the_connection():
    async with connecting() as connect:
        raw = b"GET /healthz HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x00\x01"
        assert (await said(connect, raw)).endswith(ALIVE)
