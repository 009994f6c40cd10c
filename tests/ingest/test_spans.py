"""An OpenTelemetry receiver gets one span for each delivery, on both routes through ingress."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ingest.app import create_app
from ingest.records import NewRecord
from ingest.webhooks import WebhookEndpoint
from tests.fakes import FakeLog, until
from tests.ingest.conftest import PATH, event, serving, settings, signed
from tests.ingest.connections import answer_to
from tests.otlp import Received, Receiver, receiving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

pytestmark = pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        # The delay is so long that spans arrive only because ingress sends them when it ends.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
        yield started


class ShortWayOnly(WebhookEndpoint):
    """An endpoint that fails if a request reaches it through ASGI instead of directly."""

    async def __call__(self, *_: Any) -> None:
        raise AssertionError("the request did not bypass ASGI")


async def deliver(
    body: bytes, *, in_pieces: bool, log: FakeLog | None = None, **headers: str
) -> list[NewRecord]:
    """Deliver once to an ingress with traces on, and stop the ingress; return the kept records."""
    log = log or FakeLog()
    async with tracing(log, in_pieces=in_pieces) as (reader, writer):
        await answer_to(reader, writer, *request(body, in_pieces=in_pieces, **headers))
    return log.records


@contextlib.asynccontextmanager
async def tracing(log: FakeLog, *, in_pieces: bool) -> AsyncIterator[Connection]:
    """Run an ingress with traces on; yield a connection to the ingress."""
    app = create_app(settings(traces="otlp"), log)
    if not in_pieces:
        app.state.direct.__class__ = ShortWayOnly
    async with serving(app) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.rpartition(":")[2])
        with contextlib.closing(writer):
            yield reader, writer


def request(body: bytes, *, in_pieces: bool, **headers: str) -> list[bytes]:
    """Return the pieces of a delivery; ``headers`` replace or extend the usual headers."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    given = {**{name.lower(): value for name, value in signed(body).items()}, **changed}
    lines = [f"POST {PATH} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    head = "\r\n".join([*lines, *(f"{n}: {v}" for n, v in given.items()), "", ""])
    return [head.encode(), body] if in_pieces else [head.encode() + body]


def only(receiver: Receiver) -> Received:
    (span,) = receiver.spans
    return span


def traceparents(record: NewRecord) -> list[bytes]:
    return [value for name, value in record.headers if name == "traceparent"]


async def test_an_accepted_delivery_has_a_span_that_its_record_names(receiver, in_pieces):
    before_ns = time.time_ns()
    (record,) = await deliver(event("evt_7"), in_pieces=in_pieces)
    span = only(receiver)
    assert (span.name, span.kind, span.parent_id) == ("POST /webhooks/plexy", "SERVER", "")
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/webhooks/plexy",
        "url.path": "/webhooks/plexy",
        "http.response.status_code": 200,
        "messaging.system": "kafka",
        "messaging.destination.name": "plexy.webhooks",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "ledger.event.id": "evt_7",
        "ledger.outcome": "accepted",
    }
    assert before_ns < span.start_ns < span.end_ns < time.time_ns()
    assert not span.is_error
    assert span.resource["service.name"] == "plexy-ledger-ingest"
    assert traceparents(record) == [span.traceparent]


async def test_the_span_is_part_of_the_trace_that_the_sender_names(receiver, in_pieces):
    (record,) = await deliver(event(), in_pieces=in_pieces, traceparent=SAMPLED)
    span = only(receiver)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    (kept,) = traceparents(record)
    assert kept.startswith(f"00-{TRACE}-{span.span_id}-".encode())


async def test_ingress_does_not_sample_a_trace_that_the_sender_does_not_sample(receiver, in_pieces):
    (record,) = await deliver(event(), in_pieces=in_pieces, traceparent=NOT_SAMPLED)
    assert (receiver.spans, traceparents(record)) == ([], [])


@pytest.mark.parametrize("named", ["", "x", f"00-{'0' * 32}-{PARENT}-01", SAMPLED + "-more"])
async def test_a_delivery_with_an_invalid_traceparent_begins_a_new_trace(
    receiver, in_pieces, named
):
    (record,) = await deliver(event(), in_pieces=in_pieces, traceparent=named)
    span = only(receiver)
    assert (span.parent_id, span.links) == ("", [])
    assert traceparents(record) == [span.traceparent]


async def test_the_span_of_a_badly_signed_request_links_to_the_named_trace_but_is_not_in_it(
    receiver, in_pieces
):
    stranger = {"plexy_signature": f"t={int(time.time())},v1={'0' * 64}"}
    await deliver(event(), in_pieces=in_pieces, traceparent=NOT_SAMPLED, **stranger)
    span = only(receiver)
    assert (span.parent_id, span.links) == ("", [PARENT])
    assert span.trace_id != TRACE
    assert span.attributes["ledger.outcome"] == "signature_mismatch"
    assert span.attributes["http.response.status_code"] == 401
    assert "ledger.event.id" not in span.attributes
    # The fault is the sender's, so the span is not an error.
    assert not span.is_error


async def test_the_span_of_a_rejection_names_the_offset_of_the_rejected_record(receiver, in_pieces):
    (record,) = await deliver(event("evt_8", type=7), in_pieces=in_pieces)
    span = only(receiver)
    assert span.attributes["ledger.outcome"] == "invalid_envelope"
    assert span.attributes["ledger.event.id"] == "evt_8"
    assert span.attributes["messaging.destination.name"] == "plexy.rejected"
    assert span.attributes["messaging.kafka.offset"] == 0
    assert traceparents(record) == [span.traceparent]


async def test_the_span_of_a_delivery_that_is_not_kept_is_an_error(receiver, in_pieces):
    log = FakeLog()
    log.reason = "Kafka is away"
    await deliver(event(), in_pieces=in_pieces, log=log)
    span = only(receiver)
    assert span.is_error
    assert span.attributes["error.type"] == span.attributes["ledger.outcome"] == "log_unavailable"
    assert span.attributes["http.response.status_code"] == 503
    assert "messaging.kafka.offset" not in span.attributes


async def test_the_span_of_a_bug_is_an_error_with_the_name_of_the_exception(receiver, in_pieces):
    class Broken(FakeLog):
        async def append(self, *_: Any) -> Any:
            raise ZeroDivisionError("somebody@example.com")

    await deliver(event(), in_pieces=in_pieces, log=Broken())
    span = only(receiver)
    assert span.is_error
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert span.attributes["http.response.status_code"] == 500
    assert b"somebody@example.com" not in receiver.raw


async def test_a_delivery_that_the_shutdown_ends_is_not_reported_as_a_bug(
    receiver, in_pieces, monkeypatch
):
    monkeypatch.setattr("ingest.server.LONGEST_ANSWER_S", 0)
    log = FakeLog()
    log.acknowledging.clear()
    async with tracing(log, in_pieces=in_pieces) as (_, writer):
        for piece in request(event(), in_pieces=in_pieces):
            writer.write(piece)
            # The pause makes the server read each piece separately.
            await asyncio.sleep(0.05)
        await until(lambda: log.waiting)
    # The direct handler leaves no span here, because its delivery has no outcome yet.
    if in_pieces:
        span = only(receiver)
        assert span.attributes["ledger.outcome"] == "cancelled"
        assert not {"http.response.status_code", "error.type"} & span.attributes.keys()
        assert not span.is_error
    else:
        assert receiver.spans == []


async def test_a_span_contains_the_event_id_but_no_signature_and_no_other_part_of_the_body(
    receiver, in_pieces
):
    data = {"id": "pay_1", "amount": 12345678, "email": "somebody@example.com"}
    body = event("evt_9", type="type.of.nobody", data=data)
    (record,) = await deliver(body, in_pieces=in_pieces)
    assert b"evt_9" in receiver.raw
    signature = dict(record.headers)["plexy-signature"]
    for secret in (b"12345678", b"somebody", b"type.of.nobody", b"pay_1", signature[-64:]):
        assert secret not in receiver.raw


async def test_ingress_uses_the_sampler_that_is_set_for_opentelemetry(
    receiver, in_pieces, monkeypatch
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    (record,) = await deliver(event(), in_pieces=in_pieces)
    assert (receiver.spans, traceparents(record)) == ([], [])
