"""Measures one worker as its state grows, at several numbers of orders.

At each number of orders, the module measures the rate at which the worker folds the next events,
the worker's memory, and the bytes of its databases and topics. It also measures the time until a
restarted worker is ready, in two cases: the tables are in place, or the tables were deleted and the
worker must restore them from the changelogs. No rate includes the time to prepare the input.
"""

import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from bench.burst import prepared
from bench.peers.ours import LedgerWorker
from bench.recording import RecordedDelivery, record_late_refunds, record_orders
from bench.stage import BenchStage

_ORDERS_AT_ONCE: Final = 10_000
# This is the average in the input of `bench.recording`, which includes repeated deliveries.
DELIVERIES_PER_ORDER: Final = 1.33
# At 3 million orders, which have 11 million changelog records, the limit is enough for a restore at
# 3,000 records a second.
_RESTORED_WITHIN_S: Final = 3600.0

Report = Callable[[str, float], None]
"""Takes the name of the current step, and the completed share of that step, from 0 to 1."""


class Start(NamedTuple):
    """One start of the worker; ``seconds`` is the time until the worker was ready.

    ``after`` names the event before the start, such as the signal that ended the worker. The other
    fields cover the time from the start until the worker was ready.
    """

    after: str
    seconds: float
    cpu_s: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The figures at ``size`` orders.

    The rates were measured with bursts, which also create orders. All other figures were measured
    after the bursts, when the state had ``orders`` orders.
    """

    size: int
    orders: int
    deliveries: int
    event_ids: int
    rates: Sequence[float]
    memory_bytes: int
    peak_memory_bytes: int
    databases_bytes: int
    topics_bytes: Mapping[str, int]
    restarts: Sequence[Start]
    restored_records: int
    restore: Start

    @property
    def rate(self) -> float:
        """Deliveries folded per second: the median over the bursts."""
        return median(self.rates)

    @property
    def restore_rate(self) -> float:
        """Changelog records restored per second, from the process's start until it was ready."""
        return self.restored_records / self.restore.seconds


class Growth:
    """One worker on one stage, and the counts of the deliveries written so far."""

    def __init__(self, stage: BenchStage, kafka_folder: Path, seed: int) -> None:
        self._stage = stage
        self._kafka_folder = kafka_folder
        self._seed = seed
        self._worker = LedgerWorker(stage)
        self._orders = 0
        self._deliveries = 0
        self._event_ids = 0
        self._refunded: set[int] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker while the ``with`` block runs."""
        try:
            await self._worker.start()
            yield
        finally:
            await self._worker.stop()

    async def look(
        self, size: int, *, burst: int, bursts: int, repeat: int, report: Report
    ) -> Size:
        """Add orders until the worker has folded ``size`` orders, then measure."""
        await self._grow(size, report)
        rates = [await self._fold_burst(burst, report) for _ in range(bursts)]
        memory, peak = self._worker.memory_bytes(), self._worker.peak_memory_bytes()
        report("restarting", 0.0)
        restarts = [await self._restart(after) for _ in range(repeat) for after in _ENDS]
        report("restoring from the changelogs", 0.0)
        records = await self._stage.count(*self._stage.place.changelogs)
        restore = await self._restore()
        return Size(
            size=size,
            orders=self._orders,
            deliveries=self._deliveries,
            event_ids=self._event_ids,
            rates=rates,
            memory_bytes=memory,
            peak_memory_bytes=peak,
            databases_bytes=_size(self._stage.place.folder / "data", "*"),
            topics_bytes=self._topics_bytes(),
            restarts=restarts,
            restored_records=records,
            restore=restore,
        )

    async def _grow(self, size: int, report: Report) -> None:
        began = self._orders
        while self._orders < size:
            deliveries = self._record(min(_ORDERS_AT_ONCE, size - self._orders))
            await self._stage.load(deliveries)
            report(f"delivering {size:,} orders", (self._orders - began) / (size - began))
        await self._worker.wait(lambda share: report(f"folding {size:,} orders", share))

    async def _fold_burst(self, burst: int, report: Report) -> float:
        """Fold a burst of events; return the events per second.

        Half of the events belong to new orders. The other half are refunds and repeated deliveries.
        Their orders are drawn from all orders so far, so that the worker also uses its old rows.
        """
        old = random.Random(self._orders)  # noqa: S311 - the same orders each time
        again = old.choices(range(self._orders), k=round(burst / 4 / DELIVERIES_PER_ORDER))
        refunded = self._unrefunded(old, burst // 4)
        deliveries = [
            *self._record(round(burst / 2 / DELIVERIES_PER_ORDER)),
            *self._again(again),
            *self._counted(record_late_refunds(refunded, self._seed)),
        ]
        old.shuffle(deliveries)
        async with prepared(self._stage.place, deliveries) as ready:
            began_s = await ready.write()
            ended_s = await self._worker.wait(lambda share: report("measuring the fold", share))
        return len(deliveries) / (ended_s - began_s)

    def _record(self, orders: int) -> list[RecordedDelivery]:
        """Return the deliveries of the next ``orders`` new orders."""
        deliveries = record_orders(range(self._orders, self._orders + orders), self._seed)
        self._orders += orders
        return self._counted(deliveries)

    def _again(self, numbers: Sequence[int]) -> list[RecordedDelivery]:
        """Return the deliveries of old orders; the log already has these deliveries."""
        deliveries = record_orders(numbers, self._seed)
        self._deliveries += len(deliveries)
        return deliveries

    def _unrefunded(self, chance: random.Random, count: int) -> Sequence[int]:
        """Draw distinct orders that have no late refund yet."""
        count = min(count, self._orders - len(self._refunded))
        drawn: list[int] = []
        while len(drawn) < count:
            number = chance.randrange(self._orders)
            if number not in self._refunded:
                self._refunded.add(number)
                drawn.append(number)
        return drawn

    def _counted(self, deliveries: list[RecordedDelivery]) -> list[RecordedDelivery]:
        self._deliveries += len(deliveries)
        self._event_ids += len({each.key for each in deliveries})
        return deliveries

    async def _restart(self, after: str) -> Start:
        await _ENDS[after](self._worker)
        return await self._start(after)

    async def _restore(self) -> Start:
        await self._worker.stop()
        shutil.rmtree(self._stage.place.folder / "data" / "tables")
        return await self._start("deleted tables")

    async def _start(self, after: str) -> Start:
        began_s = time.time()
        ready_s = await self._worker.start(_RESTORED_WITHIN_S)
        return Start(
            after, ready_s - began_s, self._worker.cpu_s(), self._worker.peak_memory_bytes()
        )

    def _topics_bytes(self) -> dict[str, int]:
        """Return the bytes of each topic's records on the broker's disk."""
        place = self._stage.place
        topics = (
            *place.names.hops,
            place.names.entries,
            place.names.rejected,
            place.names.orders,
            *place.changelogs,
        )
        return {
            topic.removeprefix(place.prefix): sum(
                _size(self._kafka_folder / "data" / f"{topic}-{partition}", "*.log")
                for partition in range(place.partitions)
            )
            for topic in topics
        }


_ENDS: Final = {"SIGTERM": LedgerWorker.stop, "SIGKILL": LedgerWorker.kill}


def _size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())
