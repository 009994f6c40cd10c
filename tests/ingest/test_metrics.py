"""Ingress counts the load in flight, and counts each delivery once.

A delivery takes one of two routes: to the direct handler, or through the application.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import httpx
import pytest

from cli.kafka.process import free_port
from ingest.app import create_app
from ingest.metrics import (
    BOUNDS_S,
    OUTCOMES,
    IngressMetrics,
    ProcessCounts,
    new_rows,
    serve_metrics,
)
from runtime.settings import SettingsError
from tests.fakes import FakeLog, until
from tests.ingest.conftest import PATH, Ingress, event, serving, settings, signed
from tests.scraped import Scraped


class Counted(Ingress):
    """A running ingress whose deliveries are counted."""

    def __init__(self, client: httpx.AsyncClient, log: FakeLog, metrics: IngressMetrics) -> None:
        super().__init__(client, log)
        self._metrics = metrics

    def scraped(self) -> Scraped:
        return Scraped(self._metrics.page().decode(), "ingress")

    async def in_pieces(self, body: bytes, headers: dict[str, str]) -> int:
        """Deliver a body in pieces, so that the delivery goes through the application."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
        reader, writer = await self.connect()
        writer.write("\r\n".join([*head, "", ""]).encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(body)
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status


@contextlib.asynccontextmanager
async def counted(log: FakeLog | None = None, **changes) -> AsyncIterator[Counted]:
    log = FakeLog() if log is None else log
    rows, made = new_rows(1), settings(**changes)
    metrics = IngressMetrics(rows, made.max_in_flight)
    async with (
        serving(create_app(made, log, ProcessCounts(rows[0]))) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as client,
    ):
        yield Counted(client, log, metrics)


async def test_every_delivery_is_counted_once_by_its_outcome_on_both_routes():
    forged = signed(event(), secret="whsec_test_key_guessed")
    broken, incomplete = b"{", b'{"id": "evt_2"}'
    async with counted() as ingress:
        for body, headers, status in (
            (event(), signed(event()), 200),
            (event(), forged, 401),
            (event(), {**signed(event()), "Content-Type": "text/plain"}, 415),
            (broken, signed(broken), 400),
            (incomplete, signed(incomplete), 400),
        ):
            answer = await ingress.client.post(PATH, content=body, headers=headers)
            assert answer.status_code == status
            assert await ingress.in_pieces(body, headers) == status
        scraped = ingress.scraped()
    assert scraped.by("outcome", "deliveries_total") == {
        "accepted": 2,
        "signature_mismatch": 2,
        "unsupported_media_type": 2,
        "malformed_json": 2,
        "invalid_envelope": 2,
    }
    assert scraped.by("answer", "answer_seconds_count") == {"2xx": 2, "4xx": 8}
    kept = len(event()) + len(incomplete)
    assert scraped.value("kept_bytes_total") == 2 * kept
    assert scraped.value("internal_errors_total") == 0


async def test_other_requests_are_not_counted_as_deliveries():
    async with counted() as ingress:
        for path in ("/healthz", "/nowhere", "/openapi.json"):
            await ingress.client.get(path)
        await ingress.client.get(PATH)
        assert ingress.scraped().by("outcome", "deliveries_total") == {}


async def test_if_the_log_does_not_keep_a_delivery_the_delivery_is_counted_but_not_its_bytes():
    async with counted() as ingress:
        ingress.log.reason = "Kafka does not answer"
        assert (await ingress.deliver(event())).status_code == 503
        assert await ingress.in_pieces(event(), signed(event())) == 503
        scraped = ingress.scraped()
    assert scraped.by("outcome", "deliveries_total") == {"log_unavailable": 2}
    assert scraped.by("answer", "answer_seconds_count") == {"5xx": 2}
    assert scraped.value("kept_bytes_total") == 0


async def test_a_sender_that_disconnects_gets_no_answer_and_is_counted():
    async with counted() as ingress:
        _, writer = await ingress.connect()
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{" % PATH.encode()
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await until(
            lambda: (
                ingress.scraped().by("outcome", "deliveries_total") == {"client_disconnected": 1}
            )
        )
        assert ingress.scraped().by("answer", "answer_seconds_count") == {}


async def test_a_bug_is_counted_on_both_routes(caplog):
    class Broken(FakeLog):
        async def append(self, record, until):
            del record, until
            raise ZeroDivisionError

    async with counted(Broken()) as ingress:
        assert (await ingress.deliver(event())).status_code == 500
        assert await ingress.in_pieces(event(), signed(event())) == 500
        assert ingress.scraped().value("internal_errors_total") == 2
        assert ingress.scraped().by("outcome", "deliveries_total") == {}
    assert "ZeroDivisionError" in caplog.text


async def test_a_delivery_that_waits_for_the_log_is_in_flight_until_its_answer():
    async with counted(max_in_flight=7) as ingress:
        ingress.log.acknowledging.clear()
        waiting = [asyncio.create_task(ingress.deliver(event(f"evt_{n}"))) for n in range(3)]
        await until(lambda: ingress.scraped().by("process", "in_flight") == {"0": 3})
        assert ingress.scraped().value("in_flight_limit") == 7
        ingress.log.acknowledging.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        await until(lambda: ingress.scraped().by("process", "in_flight") == {})


async def test_the_log_is_polled_and_its_state_is_reported_with_the_time_of_the_poll():
    async with counted() as ingress:
        await until(lambda: ingress.scraped().by("process", "log_available") == {"0": 1})
        looked_at = ingress.scraped().value("looked_timestamp_seconds", process=0)
        ingress.log.topic_faults = 2
        await until(lambda: ingress.scraped().by("process", "topic_faults") == {"0": 2})
        ingress.log.reason = "Kafka does not answer"
        await until(lambda: ingress.scraped().by("process", "log_available") == {})
        assert ingress.scraped().value("looked_timestamp_seconds", process=0) > looked_at


def test_a_time_is_counted_in_every_bucket_whose_bound_it_does_not_exceed():
    rows = new_rows(1)
    counts = ProcessCounts(rows[0])
    times = (0.0, 0.001, 0.0011, 0.5, 9.999, 10.0, 11.0)
    for took_s in times:
        counts.delivered("sdk", "accepted", took_s, 1)
    scraped = Scraped(IngressMetrics(rows, 1).page().decode(), "ingress")
    for bound in BOUNDS_S:
        counted = scraped.value("answer_seconds_bucket", answer="2xx", le=bound)
        assert counted == sum(took_s <= bound for took_s in times)
    assert scraped.value("answer_seconds_bucket", answer="2xx", le="+Inf") == len(times)
    assert scraped.value("answer_seconds_sum", answer="2xx") == pytest.approx(sum(times))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_has_its_own_count(outcome):
    rows = new_rows(1)
    ProcessCounts(rows[0]).delivered("sdk", outcome, 0.002, 5)
    scraped = Scraped(IngressMetrics(rows, 1).page().decode(), "ingress")
    assert scraped.by("outcome", "deliveries_total") == {outcome: 1}
    assert scraped.value("kept_bytes_total") == 5
    answered = 0 if outcome == "client_disconnected" else 1
    assert sum(scraped.by("answer", "answer_seconds_count").values()) == answered
    assert scraped.by("process", "in_flight") == scraped.by("process", "log_available") == {}


def test_the_counts_of_other_processes_are_visible():
    rows = new_rows(3)
    for number in (1, 2):
        pid = os.fork()
        if pid == 0:
            ProcessCounts(rows[number]).delivered("sdk", "accepted", 0.5, 10 * number)
            os._exit(0)
        os.waitpid(pid, 0)
    scraped = Scraped(IngressMetrics(rows, 1).page().decode(), "ingress")
    assert scraped.by("outcome", "deliveries_total") == {"accepted": 2}
    assert scraped.value("kept_bytes_total") == 30
    assert scraped.value("answer_seconds_sum", answer="2xx") == 1.0
    assert scraped.page.count("plexy_ledger_ingress_log_available{") == 3


def test_an_address_in_use_is_reported_with_its_setting():
    metrics, port = IngressMetrics(new_rows(1), 1), free_port()
    serve_metrics(metrics, "127.0.0.1", port)
    assert Scraped.of(f"http://127.0.0.1:{port}/metrics", "ingress").has("deliveries_total")
    with pytest.raises(SettingsError, match=f"LEDGER_INGEST_METRICS_PORT={port}: can't listen"):
        serve_metrics(metrics, "127.0.0.1", port)
