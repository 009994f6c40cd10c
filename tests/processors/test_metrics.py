"""A worker counts a chunk after the chunk is written; the number of label values is bounded."""

from collections import Counter
from pathlib import Path

import pytest

from ledger.payment_documents import Anomaly
from ledger.rejections import Reason
from processors.metrics import HOPS, WorkerMetrics
from processors.settings import WorkerSettings
from processors.worker import create_app
from tests.fakes import FakeConsumer
from tests.rows import write_rows
from tests.scraped import Scraped


def scraped(metrics: WorkerMetrics) -> Scraped:
    return Scraped(metrics.page().decode(), "worker")


def test_the_records_of_a_chunk_are_counted_by_their_outcome():
    metrics = WorkerMetrics()
    chunk = {"folded": 5, "duplicate": 2, "rejected.currency_unknown": 3, "forgotten": 7}
    metrics.judged(
        Counter(chunk | {"unfolded.payout.created": 4, "replayed": 6}), {"payment.succeeded": 5}
    )
    metrics.judged(Counter({"folded": 1, "rejected.id_missing": 1}))
    for reason, number in {"currency_unknown": 3, "id_missing": 1}.items():
        metrics.set_aside({reason: number})
    page = scraped(metrics)
    assert page.by("outcome", "records_total") == {
        "folded": 6,
        "duplicate": 2,
        "rejected": 4,
        "unfolded": 4,
        "replayed": 6,
    }
    assert page.by("reason", "rejected_total") == {"currency_unknown": 3, "id_missing": 1}
    assert page.by("type", "unfolded_total") == {"payout.created": 4}
    assert page.by("type", "folded_total") == {"payment.succeeded": 5}
    assert page.value("forgotten_total") == 7


def test_unknown_types_have_at_most_twenty_series_of_their_own():
    metrics = WorkerMetrics()
    for n in range(1000):
        metrics.judged(Counter({f'unfolded.made_up{{"{n}"}}\n': 1}))
    metrics.judged(Counter({'unfolded.made_up{"0"}\n': 1}))
    types = scraped(metrics).by("type", "unfolded_total")
    assert len(types) == 21
    assert types["other"] == 980
    assert types['made_up{"0"}\n'] == 2


def test_every_known_series_exists_before_its_first_count():
    page = scraped(WorkerMetrics())
    assert all(page.value("rejected_total", reason=reason) == 0 for reason in Reason)
    assert all(page.value("order_anomalies_total", anomaly=name) == 0 for name in Anomaly.__args__)
    assert all(page.value("chunk_records_count", hop=hop) == 0 for hop in HOPS)


async def test_a_chunk_is_timed_and_counted_only_if_its_work_finishes():
    metrics, consumer = WorkerMetrics(), FakeConsumer()

    async def work(chunk):
        if chunk.records[0].offset == 5:
            raise ZeroDivisionError

    timed = metrics.timed("payments", work)
    await timed(consumer.chunk(0, 0, 1, 2))
    with pytest.raises(ZeroDivisionError):
        await timed(consumer.chunk(0, 5, 6))
    page = scraped(metrics)
    assert page.by("hop", "chunk_records_count") == {"payments": 1}
    assert page.by("hop", "chunk_records_sum") == {"payments": 3}
    assert page.by("hop", "chunk_seconds_count") == {"payments": 1}


def test_a_table_reports_its_size_without_opening_a_database(tmp_path: Path):
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=4)).chunk_tables["payments"]
    assert table.sizes() == (0, 0)
    write_rows(table, 2, {b"pay_%d" % n: b"x" * 1000 for n in range(100)})
    keys, size_bytes = table.sizes()
    # The changelog's offset, the digest and the time are three more keys.
    assert keys == 103
    assert size_bytes > 100_000
    assert [folder.name for folder in (tmp_path / "tables").rglob("payments-*.db")] == [
        "payments-2.db"
    ]
