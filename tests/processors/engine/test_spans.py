"""A written chunk exports a span for each traced record, with the right parent and links."""

import os
from collections.abc import Callable, Iterator

import pytest
from faust.types import TP
from msgspec.structs import replace

from processors.engine.chunk import Chunk
from processors.engine.spans import Spans
from runtime.tracing import Tracing
from tests.fakes import FakeConsumer, a_record
from tests.otlp import Receiver, receiving

TP_OF_EVENTS = TP("ledger.events", 3)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def traceparent(span: int, flags: str = "01") -> bytes:
    return f"00-{TRACE}-{span:016x}-{flags}".encode()


def chunk(**traces: bytes | None) -> Chunk:
    """Return a chunk with a record for each argument; the first letter of its name is the key."""
    records = [
        replace(a_record(TP_OF_EVENTS, offset), key=name[0].encode(), traceparent=trace)
        for offset, (name, trace) in enumerate(traces.items())
    ]
    return Chunk(FakeConsumer(), TP_OF_EVENTS, records)


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Chunk], Receiver]]:
    """Return a function that exports a chunk's spans and returns the receiver of the spans."""
    with receiving() as receiver:
        for name, value in receiver.environment.items():
            monkeypatch.setenv(name, value)

        def exported(of: Chunk) -> Receiver:
            spans = Spans(Tracing("worker", os.environ), "group")
            each = [(record, {"ledger.outcome": "folded"}) for record in of.traced]
            spans.end("payments", of, 1000, each)
            spans.close()
            return receiver

        yield exported


def test_only_traced_records_have_a_span(export):
    (span,) = export(chunk(a=None, b=traceparent(7), c=None)).spans
    assert (span.trace_id, span.parent_id, span.start_ns) == (TRACE, f"{7:016x}", 1000)
    assert span.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "payments",
        "messaging.destination.name": "ledger.events",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "group",
        "messaging.kafka.offset": 1,
        "ledger.chunk.records": 3,
        "ledger.outcome": "folded",
    }


def test_the_last_span_of_a_key_links_to_the_earlier_spans_of_the_key(export):
    of = chunk(a1=traceparent(1), b1=traceparent(2), a2=traceparent(3), a3=traceparent(4))
    links = {span.parent_id[-1]: [link[-1] for link in span.links] for span in export(of).spans}
    assert links == {"1": [], "2": [], "3": [], "4": ["1", "3"]}


@pytest.mark.parametrize("broken", [b"", b"x", b"\xff" * 55, traceparent(0), traceparent(1, "00")])
def test_a_record_that_names_no_sampled_span_has_no_span(export, broken):
    (span,) = export(chunk(a=broken, b=traceparent(7))).spans
    assert span.parent_id == f"{7:016x}"


def test_a_full_queue_drops_new_spans_and_logs_the_loss_once(export, monkeypatch, capsys):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    monkeypatch.setattr("runtime.tracing.BatchSpanProcessor.on_end", _queue_only)
    spans = export(
        chunk(a=traceparent(1), b=traceparent(2), c=traceparent(3), d=traceparent(4))
    ).spans
    assert len(spans) == 2
    assert capsys.readouterr().out.count("spans_dropped") == 1


def _queue_only(processor, span) -> None:
    """Queue a span as the processor does, but don't wake its thread, so that the queue fills up."""
    processor._batch_processor._queue.appendleft(span)
