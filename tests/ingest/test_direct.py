"""A delivery that arrives in one piece bypasses the application, but gets the same answer."""

import asyncio
import contextlib
import json

import pytest
from starlette.responses import Response

from ingest.answers import Received, Waiting, encode_received
from ledger.records import Place
from tests.fakes import FakeLog, until
from tests.ingest.conftest import PATH, event
from tests.ingest.connections import ALIVE, GET, answer_to, connecting, delivery

DIRECT = b"from the direct handler"


class Handler:
    """A direct handler whose behaviour the test chooses."""

    path = PATH.encode()

    def __init__(self, take=lambda: Response(DIRECT)) -> None:
        self._take = take
        self.failures = 0

    def take(self, _headers, _body):
        return self._take()

    def failed(self):
        self.failures += 1


async def test_whole_deliveries_go_to_the_handler_and_other_requests_go_to_the_application():
    whole = delivery(event())
    head, _, body = whole.partition(b"\r\n\r\n")
    async with connecting(handler=Handler()) as connect:
        connection = await connect()
        for pieces, direct in (
            ([whole], True),
            ([head, b"\r\n\r\n" + body], True),
            ([head + b"\r\n\r\n", body], False),
            ([whole[:-1], whole[-1:]], False),
            ([whole], True),
            ([whole.replace(b"POST", b"PUT")], False),
            ([whole.replace(PATH.encode(), b"/elsewhere")], False),
        ):
            answer = await answer_to(*connection, *pieces)
            assert answer.endswith(DIRECT) == direct, pieces


async def test_a_large_delivery_goes_to_the_application():
    async with connecting(handler=Handler()) as connect:
        answer = await answer_to(*await connect(), delivery(event(padding="x" * 16_384)))
    assert answer.endswith(b'{"received": true}')


async def test_the_handler_and_the_application_give_the_same_answers():
    log = FakeLog()
    refused = delivery(event()).replace(b"Plexy-Signature: t=", b"Plexy-Signature: t=1")
    async with connecting(log) as connect:
        for request, status in (
            (delivery(event()), 200),
            (delivery(b"{}"), 400),
            (delivery(b"[]"), 400),
            (refused, 401),
            (delivery(event()).replace(b"application/json", b"text/plain"), 415),
        ):
            connection = await connect()
            whole = await answer_to(*connection, request)
            in_pieces = await answer_to(*connection, request[:-1], request[-1:])
            assert whole.startswith(b"HTTP/1.1 %d " % status), whole
            assert without_date(whole) == without_date(in_pieces)
        log.reason = "down"
        whole = await answer_to(*connection, delivery(event()))
        assert whole.startswith(b"HTTP/1.1 503 ")
    assert [len(log.records), log.waiting] == [4, 0]


def without_date(answer: bytes) -> list[bytes]:
    """Return the lines of an answer that are the same for every delivery."""
    varying = (b"date:", b"ledger-position:")
    return sorted(line for line in answer.splitlines() if not line.startswith(varying))


def broken():
    raise ZeroDivisionError("a secret")


def broken_later():
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    return Waiting(done, broken)


@pytest.mark.parametrize("take", [broken, broken_later])
async def test_a_bug_is_answered_with_500_and_never_with_an_acknowledgement(take, caplog):
    handler = Handler(take)
    async with connecting(handler=handler) as connect:
        connection = await connect()
        for n in range(2):
            answer = await answer_to(*connection, delivery(event()))
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert handler.failures == n + 1
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "internal_error"
            assert b"secret" not in answer
    assert "ZeroDivisionError" in caplog.text


async def test_requests_after_a_waiting_delivery_are_answered_in_their_sequence():
    log = FakeLog()
    log.acknowledging.clear()
    async with connecting(log) as connect:
        reader, writer = await connect()
        writer.write(delivery(event("evt_1")) + GET + delivery(event("evt_2")) + GET)
        await until(lambda: log.waiting)
        await asyncio.sleep(0.05)
        assert log.waiting == 1
        log.acknowledging.set()
        answers = b""
        async with asyncio.timeout(5):
            while answers.count(ALIVE) < 2:
                answers += await reader.read(65_536)
    received, alive = (answers.find(b'{"received": true}'), answers.find(ALIVE))
    assert 0 < received < alive < answers.rfind(b'{"received": true}') < answers.rfind(ALIVE)


@pytest.mark.parametrize(
    ("old", "new"), [(b"Host: x", b"Connection: close\r\nHost: x"), (b"HTTP/1.1", b"HTTP/1.0")]
)
async def test_a_connection_without_keep_alive_is_closed_after_the_answer(old, new):
    async with connecting() as connect:
        reader, writer = await connect()
        writer.write(delivery(event()).replace(old, new))
        async with asyncio.timeout(5):
            answer = await reader.read()
    assert answer.endswith(b'{"received": true}')
    assert b"connection: close" in answer


async def test_ingress_reads_nothing_after_a_request_that_closes_the_connection(caplog):
    """The connection ends after an immediate answer, and after an answer that waits for the log."""
    closing = delivery(event()).replace(b"Host: x", b"Connection: close\r\nHost: x")
    log = FakeLog()
    async with connecting(log) as connect:
        for first, status in ((closing, 200), (closing.replace(b"v1=", b"v1=00"), 401)):
            reader, writer = await connect()
            writer.write(first + delivery(event("evt_2")) + b"nonsense\r\n\r\n" * 5000)
            async with asyncio.timeout(5):
                answers = await reader.read()
            assert answers.startswith(b"HTTP/1.1 %d " % status)
            assert answers.count(b"HTTP/1.1 ") == 1
    assert [record.key for record in log.records] == [b"evt_1"]
    assert [r for r in caplog.records if r.levelname not in ("INFO", "DEBUG")] == []


async def test_a_sender_that_disconnects_before_the_acknowledgement_causes_no_error(caplog):
    log = FakeLog()
    log.acknowledging.clear()
    async with connecting(log) as connect:
        _, writer = await connect()
        writer.write(delivery(event()))
        await until(lambda: log.waiting)
        writer.close()
        await asyncio.sleep(0.05)
        log.acknowledging.set()
        await until(lambda: not log.waiting)
        reader, writer = await connect()
        assert (await answer_to(reader, writer, GET)).endswith(ALIVE)
    assert [r for r in caplog.records if r.levelname not in ("INFO", "DEBUG")] == []


async def test_a_sender_that_does_not_read_the_answers_to_its_deliveries_is_cut_off():
    async with connecting(stalled_after_s=0.5, pipelined=10_000_000) as connect:
        _, writer = await connect()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(delivery(event()) + GET * 2000)
                    await writer.drain()


async def test_the_limit_on_pipelined_requests_includes_requests_that_are_refused_at_once():
    refused = delivery(event()).replace(b"v1=", b"v1=00")
    async with connecting(pipelined=4) as connect:
        reader, writer = await connect()
        writer.write(refused * 100)
        async with asyncio.timeout(10):
            answers = await reader.read()
    # The first request was answered before the other requests were read.
    assert answers.count(b"HTTP/1.1 401 ") == 5


async def test_unread_answers_do_not_accumulate():
    calls = 0

    def large() -> Response:
        nonlocal calls
        calls += 1
        return Response(b"x" * 1_000_000)

    async with connecting(handler=Handler(large)) as connect:
        reader, writer = await connect()
        reader._transport.pause_reading()
        for _ in range(100):
            writer.write(delivery(event()))
            await asyncio.sleep(0.005)
    # Ingress stops producing answers once the operating system's buffers are full.
    assert 0 < calls < 50


def test_the_answer_has_the_new_date_when_the_date_changes():
    dates = [[(b"date", b"Mon")], [(b"date", b"Tue")]]
    for date in (dates[0], dates[1], dates[0]):
        answer = encode_received(date, Received(Place(3, 14)))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\ndate: " + date[0][1])
        assert answer.endswith(b'\r\nledger-position: 3:14\r\n\r\n{"received": true}')
