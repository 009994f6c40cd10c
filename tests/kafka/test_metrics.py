"""The metrics pages of a real ingress and a real worker show exact counts."""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from processors.metrics import HOPS
from tests.ingest.conftest import PATH, SECRET, signed
from tests.ingest.conftest import event as body_of
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    event,
    free_port,
    group_of,
    lags,
    latest,
    names_of,
    read_topic,
    until,
    wait_folded,
    worker_that_folded,
)
from tests.kafka.programs import INGEST, wait_ingress
from tests.scraped import Scraped

pytestmark = pytest.mark.timeout(240)

TOKEN = "token of the test"


class Ledger(NamedTuple):
    """An ingress of two processes, and a worker."""

    env: Mapping[str, str]
    worker: WorkerProcess

    def send(self, body: bytes, **headers: str) -> int:
        """Deliver a body on a new connection, so that either process of ingress may receive it."""
        url = f"http://127.0.0.1:{self.env['LEDGER_INGEST_PORT']}{PATH}"
        kept = {**signed(body), **{key.replace("_", "-"): text for key, text in headers.items()}}
        return httpx.post(url, content=body, headers=kept, trust_env=False).status_code

    def ingress(self) -> Scraped:
        port = self.env["LEDGER_INGEST_METRICS_PORT"]
        return Scraped.of(f"http://127.0.0.1:{port}/metrics", "ingress")

    def folded(self) -> Scraped:
        wait_folded(self.env, self.worker)
        return page_of(self.env)


def page_of(env: Mapping[str, str], **headers: str) -> Scraped:
    return Scraped.of(f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/metrics", "worker", headers)


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Ledger]:
    env = environment(
        kafka.bootstrap,
        tmp_path / "worker",
        webhook_secrets=SECRET,
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
        ingest_processes=2,
    )
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        ingest_env = env | {"LEDGER_DATA_DIR": str(tmp_path / "ingest")}
        with WorkerProcess(ingest_env, INGEST) as ingest:
            wait_ingress(ingest)
            yield Ledger(env, worker)


def payment(number: int, kind: str = "payment.succeeded", **data: object) -> bytes:
    content = {"id": f"pay_{number}", "amount": 500, "currency": "KZT", **data}
    return body_of(f"evt_{kind}_{number}", type=kind, data=content)


def refund(number: int, of: int, amount: int) -> bytes:
    data = {"id": f"re_{number}", "payment_id": f"pay_{of}", "amount": amount, "currency": "KZT"}
    return body_of(f"evt_re_{number}", type="refund.succeeded", data=data)


def test_both_pages_count_every_delivery_and_its_outcome(ledger: Ledger):
    good = [payment(n, merchantReference=f"ord_{n}") for n in range(8)]
    incomplete = b'{"id": "evt_incomplete"}'
    kept = [
        *good,
        good[0],
        good[1],
        payment(100, "payout.created"),
        payment(101, currency="XXX1"),
        # With the second refund, the refunds exceed the payment. The fourth refund has no payment.
        refund(1, of=2, amount=500),
        refund(2, of=2, amount=1),
        refund(3, of=2, amount=1),
        refund(4, of=999, amount=5),
    ]
    for body in kept:
        assert ledger.send(body) == 200
    for body in (b"{", incomplete):
        assert ledger.send(body) == 400
    for _ in range(3):
        assert ledger.send(good[0], Plexy_Signature="t=1,v1=" + "0" * 64) == 401

    ingress = ledger.ingress()
    assert ingress.by("outcome", "deliveries_total") == {
        "accepted": len(kept),
        "malformed_json": 1,
        "invalid_envelope": 1,
        "signature_mismatch": 3,
    }
    assert ingress.by("answer", "answer_seconds_count") == {"2xx": len(kept), "4xx": 5}
    assert ingress.value("kept_bytes_total") == sum(map(len, [*kept, incomplete]))
    assert ingress.value("internal_errors_total") == 0

    def available() -> bool:
        return ledger.ingress().by("process", "log_available") == {"0": 1, "1": 1}

    until(available, within_s=10, what="a log that is available")
    # The number of deliveries in progress is up to a second old, so the page may not show zero yet.
    until(
        lambda: ledger.ingress().by("process", "in_flight") == {}, within_s=10, what="no delivery"
    )

    page, names = ledger.folded(), names_of(ledger.env)
    assert page.by("outcome", "records_total") == {
        "folded": 12,
        "duplicate": 2,
        "unfolded": 1,
        "rejected": 1,
    }
    assert page.by("reason", "rejected_total") == {"currency_unknown": 1}
    assert page.by("type", "unfolded_total") == {"payout.created": 1}
    assert page.by("anomaly", "order_anomalies_total") == {
        "refund_exceeds_payment": 1,
        "refund_without_payment": 1,
        "refused_event": 1,
    }
    assert page.by("hop", "chunk_records_sum") == {
        "dedupe": len(kept),
        # This hop also receives two notes: one about the unfolded delivery, and one about the
        # rejected delivery.
        "payments": 12 + 2,
        "orders": len(read_topic(ledger.env, names.payments)),
    }
    chunks = page.by("hop", "chunk_records_count")
    assert chunks == page.by("hop", "chunk_seconds_count")
    assert set(chunks) == set(HOPS)
    assert page.value("forgotten_total") == page.value("event_ids_reused_total") == 0
    assert page.value("ready") == 1
    assert page.value("recovery_records") == 0
    assert page.by("role", "partitions") == {"active": PARTITIONS}
    for hop in HOPS:
        for partition in range(PARTITIONS):
            assert page.value("lag_records", hop=hop, partition=partition) == 0
            assert page.value("lag_seconds", hop=hop, partition=partition) == 0
    # A database's key count includes reserved keys, and RocksDB may count a key once for each write
    # to it. So the metric may exceed the number of keys in the changelog.
    keys = page.by("table", "table_keys")
    for table in ("payments", "orders"):
        held = len(latest(ledger.env, changelog_name(group_of(ledger.env), table)))
        assert held <= keys[table] <= 2 * held + PARTITIONS + 6 * len(kept)
    assert all(size_bytes > 0 for size_bytes in page.by("table", "table_bytes").values())


def test_records_folded_again_after_a_restart_are_counted_as_duplicates_or_replayed(ledger: Ledger):
    bodies = [refund(n, of=n, amount=5) for n in range(20)]
    for body in bodies:
        ledger.send(body)
    assert ledger.folded().by("anomaly", "order_anomalies_total") == {"refund_without_payment": 20}
    ledger.worker.signal(9)
    ledger.worker.wait(20)
    for body in bodies:
        ledger.send(body)
    ledger.worker.start()
    ledger.worker.wait_ready()
    page = ledger.folded()
    outcomes = page.by("outcome", "records_total")
    # Committed records are not read again, and the ids of all other records were seen before.
    assert outcomes.pop("duplicate") + outcomes.pop("replayed", 0) >= 20
    assert outcomes == {}
    assert page.by("anomaly", "order_anomalies_total") == {}


def test_the_metrics_page_of_a_restarted_worker_shows_its_recovery_and_then_its_readiness(
    kafka: EmbeddedKafka, tmp_path: Path
):
    env = environment(kafka.bootstrap, tmp_path)
    with worker_that_folded(
        env, (event(n, merchantReference=f"ord_{n}") for n in range(20_000))
    ) as worker:
        worker.signal(9)
        worker.wait(20)
        shutil.rmtree(tmp_path / "tables")
        deliver(env, (event(n) for n in range(20_000, 23_000)))
        worker.start()
        seen: list[Scraped] = []

        def ready() -> bool:
            assert worker.process
            assert worker.process.poll() is None, worker.tail()
            try:
                seen.append(page_of(env))
            except httpx.TransportError:
                return False
            return seen[-1].value("ready") == 1

        until(ready, within_s=90, what="readiness in the metrics")
        recovering = [page for page in seen if page.value("recovery_records") > 0]
        assert recovering, "no page was read during the recovery"
        assert all(page.value("ready") == 0 for page in recovering)
        assert all(not page.has("lag_seconds") for page in recovering)
        # The lag counts the deliveries that arrived while the worker was down.
        assert max(sum(page.by("hop", "lag_records").values()) for page in recovering) == 3000
        wait_folded(env, worker)
        page = page_of(env)
        assert page.value("recovery_records") == 0
        assert page.by("hop", "lag_records") == page.by("hop", "lag_seconds") == {}
        assert page.by("outcome", "records_total") == {"folded": 3000}
        assert page.value("rebalances_total") >= 1


def test_the_lag_grows_while_a_worker_is_frozen_and_then_falls_to_0(
    kafka: EmbeddedKafka, tmp_path: Path
):
    env = environment(kafka.bootstrap, tmp_path)
    with worker_that_folded(env, (event(n) for n in range(10))) as worker:
        worker.freeze()
        deliver(env, (event(n) for n in range(10, 30_000)))
        frozen_s = 2.0
        time.sleep(frozen_s)
        assert sum(lags(env).values()) == 29_990
        worker.go_on()
        seen: list[Scraped] = []

        def done() -> bool:
            seen.append(page_of(env))
            return seen[-1].by("outcome", "records_total") == {"folded": 30_000} and not (
                seen[-1].by("hop", "lag_records")
            )

        until(done, within_s=60, what="a lag of 0")
        most = max(sum(page.by("hop", "lag_records").values()) for page in seen)
        assert 1000 < most <= 3 * 29_990
        oldest_s = max(max([0.0, *page.by("partition", "lag_seconds").values()]) for page in seen)
        assert oldest_s > frozen_s
        assert seen[-1].by("hop", "lag_seconds") == {}


def test_metrics_are_shown_only_to_a_client_with_the_token(kafka: EmbeddedKafka, tmp_path: Path):
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        url = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/metrics"
        for headers in ({}, {"Authorization": "Bearer of another token"}):
            answer = httpx.get(url, headers=headers, trust_env=False)
            assert answer.status_code == 401
            assert "plexy_ledger" not in answer.text
        page = page_of(env, Authorization=f"Bearer {TOKEN}")
        assert page.value("ready") == 1
        assert TOKEN not in page.page


def test_while_kafka_is_down_the_metrics_page_has_everything_except_the_lag(
    tmp_path: Path, kafka_cache
):
    with EmbeddedKafka(tmp_path / "kafka", cache=kafka_cache) as own:
        env = environment(own.bootstrap, tmp_path / "worker")
        with worker_that_folded(env, [event(1)]):
            assert page_of(env).has("lag_records")
            own.kill()
            page = page_of(env)
            assert not page.has("lag_records")
            assert page.by("outcome", "records_total") == {"folded": 1}
            own.start()
            until(lambda: page_of(env).has("lag_records"), within_s=60, what="the lag again")
