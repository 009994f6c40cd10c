"""Each delivery makes one trace, from the request to the folded order, through all programs.

tests/ingest/test_spans.py tests the spans that ingress itself makes.
"""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.send import signed_headers
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import TopicSettings, ensure_topics
from runtime.trace_settings import TRACEPARENT
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    free_port,
    group_of,
    names_of,
    read_topic,
    run,
    until,
    wait_folded,
)
from tests.kafka.programs import INGEST, wait_ingress
from tests.otlp import Received, Receiver, receiving

pytestmark = pytest.mark.timeout(240)

SECRET = "whsec_of_the_tests"
HOPS = ["dedupe", "payments", "orders"]


class Ledger:
    """An ingress and a worker, each in its own process; both may send spans to a receiver."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self.worker = WorkerProcess(env)
        self.ingest = WorkerProcess({**env, "LEDGER_DATA_DIR": env["INGEST_DIR"]}, INGEST)
        self.url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"

    def deliver(self, body: Mapping[str, Any], **headers: str) -> int:
        raw = json.dumps(body).encode()
        sent = signed_headers(raw, SECRET) | headers
        url = f"{self.url}/webhooks/plexy"
        return httpx.post(url, content=raw, headers=sent, trust_env=False).status_code

    def records(self, topic: str) -> list[Any]:
        return read_topic(self.env, topic)


@contextlib.contextmanager
def ledger(bootstrap: str, folder: Path, more: Mapping[str, str]) -> Iterator[Ledger]:
    """Run an ingress and a worker with these variables."""
    env = environment(bootstrap, folder, webhook_secrets=SECRET, ingest_port=free_port())
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    running = Ledger({**env, "INGEST_DIR": str(folder / "ingest"), **more})
    with running.ingest, running.worker:
        running.worker.wait_ready()
        wait_ingress(running.ingest)
        yield running


def paid(event_id: str, *, payment: str = "pay_1", order: str = "ord_1", amount: int = 990) -> dict:
    data = {"id": payment, "amount": amount, "currency": "KZT", "merchantReference": order}
    return {"id": event_id, "type": "payment.succeeded", "created": 1_767_225_600, "data": data}


def refunded(event_id: str, *, refund: str, payment: str = "pay_1") -> dict:
    data = {"id": refund, "payment_id": payment, "amount": 100, "currency": "KZT"}
    return {"id": event_id, "type": "refund.succeeded", "created": 1_767_225_700, "data": data}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def traced(
    kafka: EmbeddedKafka, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    """Run a ledger whose programs send traces to the receiver."""
    folder = tmp_path_factory.mktemp("traced")
    with ledger(kafka.bootstrap, folder, receiver.environment) as running:
        yield running


def trace_of(receiver: Receiver, event_id: str, *, spans: int, number: int = 0) -> list[Received]:
    """Wait for the trace of an event's delivery; return the trace's spans, ordered by start."""

    def found() -> list[Received] | None:
        roots = [
            span
            for span in receiver.named("POST")
            if span.attributes.get("ledger.event.id") == event_id
        ]
        if len(roots) <= number:
            return None
        trace = [span for span in receiver.spans if span.trace_id == roots[number].trace_id]
        return sorted(trace, key=lambda span: span.start_ns) if len(trace) >= spans else None

    found_spans: list[Received] = until(found, within_s=30, what=f"{spans} spans of {event_id}")
    return found_spans


def test_a_delivery_is_one_trace_through_all_hops_to_the_folded_order(traced, receiver):
    assert traced.deliver(paid("evt_1")) == 200
    root, *hops = trace_of(receiver, "evt_1", spans=4)
    names = names_of(traced.env)
    topics = [names.webhooks, names.events, names.payments]
    assert [span.name for span in hops] == [
        f"{hop} {topic}" for hop, topic in zip(HOPS, topics, strict=True)
    ]
    assert {span.parent_id for span in hops} == {root.span_id}
    assert {span.kind for span in hops} == {"CONSUMER"}
    assert {span.resource["service.name"] for span in hops} == {"plexy-ledger-worker"}
    assert all(span.start_ns <= span.end_ns for span in hops)
    place = ("messaging.destination.partition.id", "messaging.kafka.offset")
    assert [hops[0].attributes[name] for name in place] == [root.attributes[name] for name in place]
    found = [{k: v for k, v in span.attributes.items() if k.startswith("ledger.")} for span in hops]
    assert found == [
        {"ledger.event.id": "evt_1", "ledger.outcome": "folded", "ledger.chunk.records": 1},
        {
            "ledger.event.id": "evt_1",
            "ledger.payment.id": "pay_1",
            "ledger.outcome": "folded",
            "ledger.chunk.records": 1,
        },
        {
            "ledger.payment.id": "pay_1",
            "ledger.order.id": "ord_1",
            "ledger.order.version": 1,
            "ledger.outcome": "folded",
            "ledger.chunk.records": 1,
        },
    ]
    assert hops[0].attributes["messaging.consumer.group.name"] == group_of(traced.env)


def test_every_record_of_an_event_carries_the_trace_of_the_delivery(traced, receiver):
    assert traced.deliver(paid("evt_2", payment="pay_2", order="ord_2")) == 200
    assert traced.deliver(paid("evt_3", payment="pay_3", order="ord_3", amount=-1)) == 200
    root, *_ = trace_of(receiver, "evt_2", spans=4)
    other, rejected, *_ = trace_of(receiver, "evt_3", spans=4)
    assert rejected.attributes["ledger.outcome"] == "rejected.amount_negative"
    wait_folded(traced.env, traced.worker)
    names = names_of(traced.env)
    for topic, key in [
        (names.webhooks, b"evt_2"),
        (names.events, b"pay_2"),
        (names.payments, b"ord_2"),
        (names.orders, b"ord_2"),
        (names.entries, b"payment/pay_2/evt_2"),
    ]:
        (record,) = [each for each in traced.records(topic) if each.key == key]
        assert dict(record.headers)["traceparent"] == root.traceparent
    (record,) = [each for each in traced.records(names.rejected) if each.key == b"evt_3"]
    assert dict(record.headers)["traceparent"] == other.traceparent


def test_a_duplicate_has_its_own_trace_which_ends_with_the_outcome_duplicate(traced, receiver):
    body = paid("evt_4", payment="pay_4", order="ord_4")
    assert [traced.deliver(body), traced.deliver(body)] == [200, 200]
    first = trace_of(receiver, "evt_4", spans=4)
    again = trace_of(receiver, "evt_4", spans=2, number=1)
    wait_folded(traced.env, traced.worker)
    assert [span.attributes["ledger.outcome"] for span in first] == ["accepted", *["folded"] * 3]
    assert [span.attributes["ledger.outcome"] for span in again] == ["accepted", "duplicate"]


def test_a_trace_ends_with_the_first_version_of_the_order_that_contains_the_event(traced, receiver):
    assert traced.deliver(paid("evt_5", payment="pay_5", order="ord_5")) == 200
    trace_of(receiver, "evt_5", spans=4)
    assert traced.deliver(refunded("evt_6", refund="re_5", payment="pay_5")) == 200
    *_, folded = trace_of(receiver, "evt_6", spans=4)
    assert folded.attributes["ledger.order.id"] == "ord_5"
    assert folded.attributes["ledger.order.version"] == 2


def test_a_chunk_continues_the_trace_of_its_last_event_and_links_to_the_traces_of_its_other_events(
    kafka, tmp_path
):
    ids = [f"evt_{n}" for n in range(50) if partition_for(b"evt_%d" % n, PARTITIONS) == 0][:2]
    with (
        receiving() as receiver,
        ledger(kafka.bootstrap, tmp_path, receiver.environment) as running,
    ):
        running.worker.stop(20)
        # Both events are in one partition, so that the worker fetches them together, as a backlog.
        assert running.deliver(paid(ids[0])) == 200
        assert running.deliver(refunded(ids[1], refund="re_1")) == 200
        running.worker.start()
        first = trace_of(receiver, ids[0], spans=3)
        last = trace_of(receiver, ids[1], spans=4)
        wait_folded(running.env, running.worker)
        assert [span.name.split()[0] for span in first] == ["POST", "dedupe", "payments"]
        assert [span.name.split()[0] for span in last] == ["POST", "dedupe", "payments", "orders"]
        assert [span.links for span in last] == [[], [], [first[0].span_id], []]
        assert [span.links for span in first] == [[], [], []]
        assert last[-1].attributes["ledger.order.version"] == 2
        (document,) = running.records(names_of(running.env).orders)
        assert dict(document.headers)["traceparent"] == last[0].traceparent


def test_verify_and_prove_accept_records_with_the_header_of_a_trace(traced, tmp_path):
    assert traced.deliver(paid("evt_8", payment="pay_8", order="ord_8")) == 200
    wait_folded(traced.env, traced.worker)
    code, said = run(traced.env, "verify")
    assert code == 0, said
    status, proof = traced.worker.get("/orders/ord_8/proof")
    assert status == 200
    ((_, traceparent),) = [
        each for each in proof["records"][0]["headers"] if each[0] == TRACEPARENT
    ]
    assert base64.b64decode(traceparent).startswith(b"00-")
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    code, said = run(traced.env, "prove", tmp_path / "proof.json")
    assert code == 0, said
    status, found = traced.worker.get("/orders/ord_8/events?raw=true")
    assert status == 200
    assert TRACEPARENT in found["deliveries"][0]["headers"]


@pytest.mark.parametrize("trouble", ["away", "silent"])
def test_deliveries_are_kept_and_folded_and_programs_end_on_time_if_no_receiver_answers(
    kafka, tmp_path, trouble
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if trouble == "silent" else free_port()
        there = {
            "LEDGER_TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
        }
        with ledger(kafka.bootstrap, tmp_path, there) as running:
            for number in range(40):
                body = paid(f"evt_{number}", payment=f"pay_{number}", order=f"ord_{number}")
                assert running.deliver(body) == 200
            wait_folded(running.env, running.worker)
            assert running.worker.get("/orders/ord_39")[0] == 200
            for program, within_s in [(running.ingest, 5), (running.worker, 10)]:
                program.stop(within_s)
            # Each program logs only one line about dropped spans, and not a line for each span.
            for program in (running.ingest, running.worker):
                assert len(program.logged("spans_dropped")) == 1, program.tail()


def test_queued_spans_are_sent_when_a_program_ends(kafka, tmp_path):
    with receiving() as receiver:
        late = receiver.environment | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with ledger(kafka.bootstrap, tmp_path, late) as running:
            assert running.deliver(paid("evt_1")) == 200
            wait_folded(running.env, running.worker)
            assert receiver.spans == []
            for program, within_s in [(running.ingest, 5), (running.worker, 10)]:
                program.stop(within_s)
        assert len(trace_of(receiver, "evt_1", spans=4)) == 4


def test_each_process_of_an_ingress_sends_spans(kafka, tmp_path):
    with receiving() as receiver:
        several = receiver.environment | {"LEDGER_INGEST_PROCESSES": "2"}
        with ledger(kafka.bootstrap, tmp_path, several) as running:
            numbers = iter(range(1000))

            def both() -> bool:
                assert running.deliver(paid(f"evt_{next(numbers)}")) == 200
                spans = receiver.named("POST")
                return len({span.resource["service.instance.id"] for span in spans}) == 2

            until(both, within_s=60, what="spans of two processes")


def test_without_tracing_no_record_has_the_header_of_a_trace(kafka, tmp_path):
    with ledger(kafka.bootstrap, tmp_path, {}) as running:
        named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        assert running.deliver(paid("evt_1"), traceparent=named) == 200
        wait_folded(running.env, running.worker)
        names = names_of(running.env)
        (record,) = running.records(names.webhooks)
        assert [name for name, _ in record.headers] == [
            "plexy-signature",
            "received-at-ms",
            "content-type",
        ]
        for topic in (names.events, names.payments, names.orders, names.entries):
            (record,) = running.records(topic)
            assert list(record.headers) == []
