"""A connection takes only limited memory and time, and ends after an answer, or silently."""

import asyncio
import contextlib
import json
import time

import pytest

from tests.fakes import FakeLog, until
from tests.ingest.conftest import PATH, event, signed
from tests.ingest.connections import ALIVE, CLOSING, GET, connecting, delivery, said

POST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()


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
async def test_bytes_that_are_not_a_request_get_a_problem_document_and_end_the_connection(raw):
    async with connecting() as connect:
        assert_refused(await said(connect, raw), 400, "malformed_request")
        assert await said(connect, CLOSING)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"x" * 16_500 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 16_500,
        GET[:-2] + b"A: b\r\n" * 100 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 16_500 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 400_000,
        GET[:-2] + b"a" * 400_000,
    ],
)
async def test_a_head_that_is_too_large_is_431_before_the_head_is_complete(raw):
    async with connecting() as connect:
        assert_refused(await said(connect, raw), 431, "head_too_large")


async def test_a_large_head_within_the_limits_is_accepted():
    headers = b"".join(b"A%d: %b\r\n" % (n, b"b" * 140) for n in range(98))
    async with connecting() as connect:
        answer = await said(connect, GET[:-2] + headers + b"Connection: close\r\n\r\n")
    assert answer.endswith(ALIVE)


async def test_a_body_in_too_many_chunks_is_413():
    async with connecting(chunks=10) as connect:
        raw = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 11
        assert_refused(await said(connect, raw), 413, "body_too_large")


# A delivery that follows an unanswered request goes through the application. Any other delivery
# goes directly to its handler.
BOTH_WAYS = pytest.mark.parametrize("before", [b"", GET], ids=["direct", "application"])
OPENING = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = OPENING + b"2\r\n{}\r\n0\r\n"


def chunked(body: bytes, *headers: bytes, trailers: bytes = b"") -> bytes:
    """Return a delivery whose body is one chunk, with these headers and trailers."""
    lines = b"".join(line + b"\r\n" for line in (*headers, b"Transfer-Encoding: chunked"))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode() + lines
    return head + b"\r\n%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


def signature(body: bytes) -> bytes:
    return b"Plexy-Signature: " + signed(body)["Plexy-Signature"].encode()


JSON = b"Content-Type: application/json"


@BOTH_WAYS
@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (LAST_CHUNK, b"a"),
        (LAST_CHUNK + b"A: ", b"a"),
        (LAST_CHUNK, b"A: b\r\n"),
        (OPENING + b"2;", b"a"),
        (OPENING + b"2;a=", b"a"),
        (OPENING, b"0"),
        (OPENING, b"1;" + b"a" * 500 + b"\r\n \r\n"),
        (b"", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA:", b" "),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"a"),
    ],
    ids=[
        "trailer name",
        "trailer value",
        "trailers",
        "extension name",
        "extension value",
        "chunk size",
        "many extensions",
        "line ends before a request",
        "space before a value",
        "header name",
    ],
)
async def test_too_many_bytes_outside_the_body_end_the_connection(before, begun, more):
    """The request never ends, so only the limit on its bytes can end the connection."""
    async with connecting(stalled_after_s=60) as connect:
        answer = await said(connect, before + begun + more * (40_000 // len(more)))
        rest = answer.partition(ALIVE)[2] if before else answer
        assert_refused(rest, 431, "head_too_large")
        assert (await said(connect, CLOSING)).endswith(ALIVE)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST.replace(PATH.encode(), b"/elsewhere"), 404),
        (POST.replace(b"application/json", b"text/plain"), 415),
    ],
)
async def test_a_body_that_continues_after_the_answer_ends_the_connection(head, status):
    async with connecting(stalled_after_s=60, dropped_bytes=50_000) as connect:
        reader, writer = await connect()
        writer.write(head + b"Content-Length: %d\r\n\r\n" % 2**40)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 %d " % status)
        writer.write(b" " * 60_000)
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_a_short_remainder_of_a_refused_body_leaves_the_connection_open():
    async with connecting(dropped_bytes=50_000) as connect:
        reader, writer = await connect()
        writer.write(POST.replace(b"json", b"xml") + b"Content-Length: 40000\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 415 ")
        writer.write(b" " * 40_000 + GET)
        async with asyncio.timeout(10):
            await reader.readuntil(ALIVE)


@BOTH_WAYS
async def test_chunks_with_extensions_and_trailers_within_the_limit_are_accepted(before):
    body = event(padding="x" * 700)
    pieces = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body)
    raw = chunked(body, JSON, signature(body), trailers=b"X-Sum: 1\r\n" * 100)
    log = FakeLog()
    async with connecting(log) as connect:
        head, _, last = raw.partition(b"\r\n\r\n")
        last = last[last.index(b"0\r\nX-Sum") :]
        reader, writer = await connect()
        writer.write(before + head + b"\r\n\r\n" + pieces + last)
        async with asyncio.timeout(5):
            await reader.readuntil(b'{"received": true}')
    assert [record.value for record in log.records] == [body]


@BOTH_WAYS
async def test_a_signature_in_a_trailer_is_ignored(before):
    """A proxy forwards trailers, but does not check them."""
    log = FakeLog()
    raw = chunked(event(), JSON, trailers=signature(event()) + b"\r\n")
    async with connecting(log) as connect:
        answer = await said(connect, before + raw + CLOSING)
    assert b'"code":"signature_missing"' in answer
    assert answer.endswith(ALIVE)
    assert log.records == []


@BOTH_WAYS
@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Type: text/plain",
        b"Plexy-Signature: t=1,v1=00",
        b"Host: a:b:c",
        b"Expect: 100-continue",
        b"Upgrade: websocket\r\nConnection: upgrade",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
async def test_a_trailer_does_not_change_a_delivery(before, trailer):
    log = FakeLog()
    raw = chunked(event(), JSON, signature(event()))
    with_trailer = chunked(event(), JSON, signature(event()), trailers=trailer + b"\r\n")
    async with connecting(log) as connect:
        answers = [await said(connect, before + each + CLOSING) for each in (raw, with_trailer)]
    plain, other = [stable_lines(answer) for answer in answers]
    assert other == plain
    assert answers[1].count(b"HTTP/1.1 200 ") == (3 if before else 2)
    headers = [[h for h in record.headers if h[0] != "received-at-ms"] for record in log.records]
    assert headers[0] == headers[1]


def stable_lines(answer: bytes) -> list[bytes]:
    """Return the lines of an answer that are the same for every delivery."""
    varying = (b"date:", b"ledger-position:")
    return [line for line in answer.splitlines() if not line.startswith(varying)]


@BOTH_WAYS
async def test_the_answer_closes_the_connection_after_a_trailer_that_says_connection_close(before):
    """After this trailer, the parser skips all bytes, so it would ignore the next delivery."""
    raw = chunked(event(), JSON, signature(event()), trailers=b"Connection: close\r\n")
    async with connecting() as connect:
        answer = await said(connect, before + raw + GET)
    delivered = answer.partition(ALIVE)[2] if before else answer
    assert delivered.endswith(b'{"received": true}')
    assert b"connection: close" in delivered


HOSTS = [
    b"Host: a:b:c",
    b"Host:",
    b"Host: a b",
    b"Host: a/b",
    b"Host: a@b",
    b"Host: a,b",
    b"Host: [::1",
    b"Host: a:-1",
    b"Host: a:123456",
    b"Host: \xff",
    b"Host: x\r\nHost: x",
    b"Host: x\r\nhost: y",
    b"A: b",
]


@BOTH_WAYS
@pytest.mark.parametrize("host", HOSTS)
async def test_an_invalid_host_header_is_400(before, host):
    """RFC 9112, section 3.2, also requires 400 if a request has no Host header or has several."""
    log = FakeLog()
    async with connecting(log) as connect:
        for raw in (delivery(event()), GET, GET.replace(b"healthz", b"elsewhere")):
            answer = await said(connect, before + raw.replace(b"Host: x", host))
            rest = answer.partition(ALIVE)[2] if before else answer
            assert_refused(rest, 400, "malformed_request")
            assert b"Host" in rest
    assert log.records == []


@pytest.mark.parametrize("host", [b"x", b"a_b-c.example", b"127.0.0.1:8000", b"[::1]:80", b"x:"])
async def test_a_host_is_a_name_or_an_address_and_optionally_a_port(host):
    async with connecting() as connect:
        assert (await said(connect, CLOSING.replace(b"Host: x", b"Host: " + host))).endswith(ALIVE)


@BOTH_WAYS
async def test_zeros_before_a_length_are_accepted(before):
    """The parser accepts any number of zeros, but `int` reads at most 4,300 digits."""
    raw = delivery(event()).replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5000)
    log = FakeLog()
    async with connecting(log) as connect:
        assert b'{"received": true}' in await said(connect, before + raw + CLOSING)
    assert [record.value for record in log.records] == [event()]


async def test_http_1_0_needs_no_host():
    async with connecting() as connect:
        assert (await said(connect, b"GET /healthz HTTP/1.0\r\n\r\n")).endswith(ALIVE)


async def test_garbage_after_a_delivery_does_not_affect_the_delivery():
    log = FakeLog()
    async with connecting(log) as connect:
        answer = await said(connect, delivery(event()) + b"nonsense\r\n\r\n")
    first, _, rest = answer.partition(b'{"received": true}')
    assert first.startswith(b"HTTP/1.1 200 ")
    assert_refused(rest, 400, "malformed_request")
    assert [record.value for record in log.records] == [event()]


async def test_garbage_after_a_waiting_delivery_is_answered_after_the_delivery():
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
        # The event loop's clock counts whole milliseconds, so a wait may be a little shorter.
        assert time.monotonic() - began >= 0.298


async def test_a_trickle_of_bytes_does_not_keep_a_connection_open():
    async with connecting(stalled_after_s=0.3) as connect:
        reader, writer = await connect()
        closed = asyncio.create_task(reader.read())
        async with asyncio.timeout(5):
            while not closed.done():
                writer.write(b"P")
                await asyncio.wait([closed], timeout=0.05)


async def test_between_two_requests_a_connection_may_be_idle_for_longer_than_a_request_may_stall():
    async with connecting(stalled_after_s=0.2) as connect:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(ALIVE)
            await asyncio.sleep(0.3)


async def test_a_sender_that_does_not_read_the_answers_is_cut_off():
    async with connecting(stalled_after_s=0.5, pipelined=10_000_000) as connect:
        _, writer = await connect()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(GET * 2000)
                    await writer.drain()


async def test_pipelined_requests_up_to_the_limit_are_answered_in_their_sequence():
    async with connecting(pipelined=16) as connect:
        reader, writer = await connect()
        writer.write(GET * 15 + CLOSING.replace(b"healthz", b"readyz"))
        async with asyncio.timeout(5):
            answers = await reader.read()
        assert answers.count(ALIVE) == 15
        assert answers.endswith(b'{"status":"ready"}')


async def test_too_many_pipelined_requests_close_the_connection_after_the_allowed_answers():
    async with connecting(pipelined=4) as connect:
        answers = await said(connect, GET * 1000)
        assert answers.count(b"HTTP/1.1 200 ") == answers.count(ALIVE) == 4


async def test_a_connection_beyond_the_limit_replaces_the_connection_that_waits_longest():
    async with connecting(connections=3) as connect:
        oldest, second, third = [await connect() for _ in range(3)]
        # The oldest connection now begins a request, so its wait is no longer the longest.
        oldest[1].write(GET[:12])
        await asyncio.sleep(0.1)
        newest = await connect()
        newest[1].write(GET)
        await newest[0].readuntil(ALIVE)
        with contextlib.suppress(ConnectionResetError):
            assert await second[0].read() == b""
        for reader, writer, rest in ((*oldest, GET[12:]), (*third, GET)):
            writer.write(rest)
            await reader.readuntil(ALIVE)


async def test_a_connection_with_a_delivery_that_waits_for_kafka_is_never_replaced():
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


OFFERS = [
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Upgrade: TLS/1.0\r\nConnection: keep-alive, UPGRADE",
]


@BOTH_WAYS
@pytest.mark.parametrize("offer", OFFERS)
async def test_a_delivery_that_offers_another_protocol_is_read_as_http(before, offer):
    log = FakeLog()
    whole = delivery(event(), offer)
    in_chunks = chunked(event(), JSON, signature(event()), offer)
    async with connecting(log) as connect:
        for raw in (whole, in_chunks):
            answer = await said(connect, before + raw + CLOSING)
            assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 ") == 2 + bool(before)
    assert [record.value for record in log.records] == [event(), event()]


@BOTH_WAYS
@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("offer", OFFERS)
async def test_pipelined_deliveries_that_offer_another_protocol_are_all_read(before, offer, count):
    log = FakeLog()
    raw = before + count * delivery(event(), offer)
    async with connecting(log, pipelined=count + 2) as connect:
        answer = await said(connect, raw + CLOSING)
        assert answer.count(b"HTTP/1.1 200 ") == count + 1 + bool(before)
    assert [record.value for record in log.records] == count * [event()]


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_delivery_that_offers_another_protocol_may_arrive_byte_by_byte(offer):
    log = FakeLog()
    async with connecting(log) as connect:
        reader, writer = await connect()
        for byte in delivery(event(), offer):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 200 ")
    assert [record.value for record in log.records] == [event()]


async def test_the_method_connect_is_answered_in_http_and_ends_the_connection():
    async with connecting() as connect:
        answer = await said(connect, b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n\x00\x01")
        assert answer.count(b"HTTP/1.1 ") == 1
