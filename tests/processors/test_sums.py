"""A summary always equals the sum of the table's rows, whichever worker wrote them."""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from ledger.anomalies import ANY_ANOMALY, AnomalousOrders, changes_of, key_of
from ledger.orders import describe
from ledger.wire import ORDERS
from processors import sums
from processors.engine.chunk import FetchedRecord
from processors.engine.tables import ChangelogChunk, ChunkTable
from processors.settings import WorkerSettings
from processors.sums import Sums
from processors.worker import create_app
from tests.ledger.examples import refund, success
from tests.ledger.pipeline import Pipeline
from tests.rows import write_rows
from tests.strategies import chunked, histories

PARTITIONS = 2


class Numbers:
    """A summary for tests: the sum of numbers, and the count of numbers read from the table."""

    def __init__(self) -> None:
        self.total = self.taken = 0

    def take(self, _key: bytes, value: bytes) -> None:
        self.total += int(value)
        self.taken += 1

    def change(self, change: int) -> None:
        self.total += change


class Ledger:
    """A real table, and the parts of a worker that the sums use."""

    def __init__(self, folder: Path) -> None:
        self.app = create_app(WorkerSettings(data_dir=folder, partitions=PARTITIONS))
        self.table: ChunkTable = self.app.chunk_tables["payments"]
        self.worker = SimpleNamespace(
            rebalancing=False,
            in_recovery=False,
            tables=SimpleNamespace(actives_ready=True),
            consumer_generation_id=1,
        )
        self.sums = Sums(self.worker, self.table, PARTITIONS, Numbers)
        self.give(0, 1)

    def give(self, *partitions: int) -> None:
        """Assign these partitions to the worker, in a new generation of the group."""
        changelog = self.table.changelog_name
        self.app.assignor._active_tps = {TP(changelog, number) for number in partitions}
        self.worker.consumer_generation_id += 1

    def fold(self, partition: int, values: dict[bytes, int]) -> None:
        """Write values and update the sums in one step of the event loop, as ``Effects`` does."""
        held = self.table.read_chunk(partition, values)
        self.write(partition, values)
        more = sum(values.values()) - sum(map(int, held.values()))
        self.sums.changed(partition, more)

    def write(self, partition: int, values: dict[bytes, int]) -> None:
        write_rows(self.table, partition, {key: b"%d" % value for key, value in values.items()})

    def take_over(self, partition: int, values: dict[bytes, int]) -> None:
        """Apply records to the table as if another worker had written them to the changelog."""
        self.table.fold_none()
        begin = self.table.end(partition)
        records = [
            FetchedRecord(key, b"%d" % value, partition, begin + n, 0)
            for n, (key, value) in enumerate(values.items())
        ]
        tp = TP(self.table.changelog_name, partition)
        self.table.apply(ChangelogChunk(tp, begin, begin + len(records), records))

    def total(self, partition: int) -> int | None:
        found = self.sums.of(partition)
        return found.total if found else None


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


async def test_stored_rows_are_summed_and_the_changes_of_chunks_are_added(ledger):
    ledger.write(0, {b"a": 1, b"b": 2})
    assert ledger.sums.here() is None
    await ledger.sums.look()
    ledger.fold(0, {b"a": 10, b"c": 100})
    ledger.fold(1, {b"d": 1000})
    assert [ledger.total(0), ledger.total(1)] == [112, 1000]


@pytest.mark.parametrize("seed", range(5))
async def test_a_change_that_is_made_while_the_rows_are_read_counts_once(ledger, seed, monkeypatch):
    monkeypatch.setattr(sums, "_AT_A_TIME", 3)
    monkeypatch.setattr(sums, "_PAUSE_S", 0)
    chance = random.Random(seed)  # noqa: S311
    ledger.write(0, {b"%03d" % n: n for n in range(100)})
    looking = asyncio.create_task(ledger.sums.look())
    folded = 0
    while not looking.done():
        await asyncio.sleep(0)
        ledger.fold(0, {b"%03d" % chance.randrange(120): chance.randrange(50) for _ in range(3)})
        folded += 1
    await looking
    assert folded > 10
    assert ledger.total(0) == sum(int(value) for _, value in ledger.table.rows_now(0))


async def test_a_partition_that_a_worker_keeps_through_a_rebalance_is_not_summed_again(ledger):
    ledger.write(0, {b"a": 1})
    await ledger.sums.look()
    before = ledger.sums.of(0)
    ledger.give(0)
    assert ledger.sums.of(0) is before
    await ledger.sums.look()
    ledger.fold(0, {b"b": 2})
    assert (ledger.sums.of(0), ledger.total(0)) == (before, 3)


async def test_a_partition_is_summed_again_after_another_worker_wrote_to_it(ledger):
    ledger.write(0, {b"a": 1})
    await ledger.sums.look()
    ledger.give(1)
    # The partition returns before the sums are updated again.
    ledger.take_over(0, {b"a": 5, b"b": 7})
    ledger.give(0, 1)
    assert ledger.total(0) is None
    assert ledger.total(1) == 0
    await ledger.sums.look()
    assert ledger.total(0) == 12


async def test_a_partition_that_moved_to_another_worker_is_forgotten(ledger):
    await ledger.sums.look()
    ledger.give(1)
    await ledger.sums.look()
    assert ledger.sums.of(0) is None
    assert [each.total for each in ledger.sums.here() or ()] == [0]


@pytest.mark.parametrize("what", ["rebalance", "changelog"])
async def test_an_interrupted_sum_is_computed_from_scratch(ledger, what, monkeypatch):
    monkeypatch.setattr(sums, "_AT_A_TIME", 1)
    ledger.write(0, {b"%03d" % n: 1 for n in range(100)})
    looking = asyncio.create_task(ledger.sums.look())
    # After one turn of the event loop, the summing is in its first pause.
    await asyncio.sleep(0)
    assert ledger.sums.of(0) is None
    assert not looking.done()
    if what == "rebalance":
        ledger.give(0, 1)
    else:
        ledger.take_over(0, {b"000": 11})
    await looking
    assert ledger.total(0) is None
    await ledger.sums.look()
    assert ledger.total(0) == sum(int(value) for _, value in ledger.table.rows_now(0))
    assert ledger.sums.of(0).taken == 100


async def test_a_partition_that_is_lost_during_the_sum_of_another_partition_is_not_summed(
    ledger, monkeypatch
):
    monkeypatch.setattr(sums, "_AT_A_TIME", 1)
    ledger.write(0, {b"%03d" % n: 1 for n in range(100)})
    looking = asyncio.create_task(ledger.sums.look())
    # After one turn of the event loop, the summing is in its first pause.
    await asyncio.sleep(0)
    assert ledger.sums.of(0) is None
    assert not looking.done()
    ledger.give(0)
    await looking
    assert ledger.sums.of(1) is None
    await ledger.sums.look()
    assert [each.total for each in ledger.sums.here() or ()] == [100]


@given(st.data())
def test_the_fold_keeps_the_same_anomaly_lists_as_a_build_from_all_orders(
    data: st.DataObject,
):
    pipeline, followed = Pipeline(), AnomalousOrders()
    for chunk in data.draw(chunked(data.draw(histories()))):
        before = dict(pipeline.orders)
        pipeline.fold([chunk])
        now = {name: order for name, order in pipeline.orders.items() if before.get(name) != order}
        followed.change(changes_of(now, before))
        if data.draw(st.booleans()):
            # Reading a list sorts its keys. Only some chunks are followed by a read, so both sorted
            # and unsorted keys are tested.
            list(followed.latest(ANY_ANOMALY, None))
    rebuilt = AnomalousOrders()
    for order in pipeline.orders.values():
        rebuilt.take(order.order_id.encode(), ORDERS.encode(order))
    documents = [document for order in pipeline.orders.values() if (document := describe(order))]
    for name in {ANY_ANOMALY, *(name for each in documents for name in each.anomalies)}:
        keys = [
            key_of(each.last_event, each.order_id)
            for each in documents
            if each.anomalies and name in {ANY_ANOMALY, *each.anomalies}
        ]
        assert list(followed.latest(name, None)) == sorted(keys, reverse=True)
        assert followed.counts().get(name, 0) == len(keys)
        assert list(rebuilt.latest(name, None)) == list(followed.latest(name, None))
    assert followed.counts() == rebuilt.counts()


def test_a_list_continues_after_the_key_at_which_a_page_ended():
    pipeline, orders = Pipeline(), AnomalousOrders()
    lone = [refund(f"evt_{n}", n, 5, refund_id=f"re_{n}", payment=None) for n in (3, 1, 2)]
    pipeline.fold([lone])
    orders.change(changes_of(pipeline.orders, {}))
    keys = list(orders.latest("refund_without_payment", None))
    assert len(keys) == 3
    assert list(orders.latest("refund_without_payment", keys[0])) == keys[1:]
    assert list(orders.latest("refund_without_payment", keys[2])) == []
    assert list(orders.latest("currency_mismatch", None)) == []


def test_an_order_that_is_missing_from_its_list_is_an_error():
    pipeline = Pipeline()
    pipeline.fold([[success("evt_1", 1, 5), refund("evt_2", 2, 9)]])
    before = dict(pipeline.orders)
    pipeline.fold([[refund("evt_3", 3, 1, refund_id="re_2")]])
    with pytest.raises(ValueError, match="not among the orders with"):
        AnomalousOrders().change(changes_of(pipeline.orders, before))
