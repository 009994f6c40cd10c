"""Each measurement of `bench`, made very small and on a real broker, reports exact counts."""

import uuid
from pathlib import Path

import pytest

from bench.growth import Growth
from bench.latency import installed, measure
from bench.open_load import LoadSettings
from bench.recording import record
from bench.stage import Setup, open_stage
from bench.together import fold_together
from cli.kafka.broker import EmbeddedKafka
from cli.settings import DEVELOPMENT_SECRET

pytestmark = pytest.mark.timeout(240)


def _place(kafka: EmbeddedKafka, folder: Path) -> Setup:
    return Setup(bootstrap=kafka.bootstrap, name=f"b{uuid.uuid4().hex[:12]}", folder=folder)


def test_in_a_measurement_of_latency_every_delivery_is_acknowledged_and_every_sample_is_seen(
    kafka: EmbeddedKafka, tmp_path: Path
):
    with installed(kafka.bootstrap, tmp_path, prefix=f"b{uuid.uuid4().hex[:12]}.") as ledger:
        load = LoadSettings(
            ingest_port=ledger.ingest_port,
            views_port=ledger.views_port,
            secret=DEVELOPMENT_SECRET,
            rate_per_s=40,
            warm_up_s=0.5,
            seconds=2,
            samples_per_s=5,
            first_order=0,
            seed=1,
        )
        outcome = measure(ledger, load, lambda _share: None).outcome
    assert outcome.sent == len(outcome.ack_s) == 80
    assert (outcome.refused, outcome.unseen) == (0, 0)
    assert len(outcome.samples) >= 5
    for sample in outcome.samples:
        assert 0 <= sample.not_before_s < sample.seen_s


async def test_a_worker_whose_ledger_grows_is_measured_at_each_size(
    kafka: EmbeddedKafka, tmp_path: Path
):
    async with open_stage(_place(kafka, tmp_path / "worker")) as stage:
        growth = Growth(stage, kafka.folder, seed=1)
        async with growth.running():
            sizes = [
                await growth.look(orders, burst=40, bursts=2, repeat=1, report=lambda *_: None)
                for orders in (20, 100)
            ]
        webhooks = await stage.count(stage.place.names.webhooks)
        seen = await stage.count(stage.place.changelogs[0])
    assert [size.size for size in sizes] == [20, 100]
    assert [size.orders for size in sizes] == [50, 130]
    assert sizes[-1].deliveries == webhooks
    assert sizes[-1].event_ids < sizes[-1].deliveries
    # Each chunk writes one record for each event id, and one more record for its progress.
    assert sizes[-1].restored_records > seen >= sizes[-1].event_ids
    for size in sizes:
        assert [start.after for start in size.restarts] == ["SIGTERM", "SIGKILL"]
        assert len(size.rates) == 2
        assert 0 < min(size.rates) <= size.rate <= max(size.rates)
        assert min(size.topics_bytes["plexy.webhooks"], size.topics_bytes["ledger.orders"]) > 0


async def test_two_workers_together_produce_the_same_totals_as_the_rules(
    kafka: EmbeddedKafka, tmp_path: Path
):
    async with open_stage(_place(kafka, tmp_path)) as stage:
        fleet = await fold_together(stage, 2, record(400, seed=1), lambda _share: None)
    assert fleet.events == 400
    assert not fleet.differences
    assert fleet.seconds > 0
