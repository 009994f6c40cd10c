"""Sums over a table of this worker, kept while it folds: what was posted, which anomalies stand.

In: a table, once for each partition that this worker is given; what each chunk changes from then
on. Out: sums by key. Never: a sum that is ahead of the table or behind it: both change in one step
of the event loop. Never a store of its own: it could differ.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic

import structlog

from ledger.activity import Activity, Key, add, standing_activity
from ledger.orders import Order, anomalies_of
from ledger.wire import ORDERS, PAYMENTS
from processors.tables import ChunkTable

log = structlog.get_logger(__name__)

# As many payments, or orders, as are summed before the agents get their turn, some 2 ms, and
# the pause after them: a million payments take half a minute, in which the agents have two thirds
# of the time.
_AT_A_TIME: Final = 200
_PAUSE_S: Final = 0.004
_LOOK_EVERY_S: Final = 0.5

ANY_ANOMALY: Final = "any"
"""Under it stand the orders that have any anomaly, each once."""


class Sums(Generic[Key]):
    """The sums of each partition that this worker folds; see ``of`` for when they are there.

    ``amounts`` says what one value of the table adds.
    """

    def __init__(
        self,
        app: Any,
        table: ChunkTable,
        partitions: int,
        amounts: Callable[[bytes], Mapping[Key, int]],
    ) -> None:
        self._app = app
        self._table = table
        self._partitions = partitions
        self._amounts = amounts
        self._sums: dict[int, dict[Key, int]] = {}
        self._summed: set[int] = set()
        self._generation = -1

    def changed(self, partition: int, more: Mapping[Key, int]) -> None:
        """Add what a chunk changed, right after its values are in the table."""
        # What is not being summed yet will be found in the table.
        if partition in self._sums:
            add(self._sums[partition], more)

    def of(self, partition: int) -> Mapping[Key, int] | None:
        """Return a partition's sums; ``None`` while its values are still being summed."""
        is_of_now = self._generation == self._app.consumer_generation_id
        return self._sums[partition] if is_of_now and partition in self._summed else None

    def here(self) -> dict[Key, int] | None:
        """Return the sums of all partitions that this worker folds; ``None`` if one is missing."""
        total: dict[Key, int] = {}
        for partition in self.active:
            sums = self.of(partition)
            if sums is None:
                return None
            add(total, sums)
        return total

    @property
    def active(self) -> list[int]:
        """The partitions that this worker folds."""
        return [number for number in range(self._partitions) if self._table.is_active(number)]

    async def keep(self) -> None:
        """Sum each partition that this worker is given, until the app stops."""
        while not self._app.should_stop:
            await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        if self._app.rebalancing or self._app.in_recovery or not self._app.tables.actives_ready:
            return
        if self._generation != self._app.consumer_generation_id:
            self._generation = self._app.consumer_generation_id
            self._sums.clear()
            self._summed.clear()
        for partition in self.active:
            if partition not in self._sums:
                await self._sum(partition, self._generation)

    async def _sum(self, partition: int, generation: int) -> None:
        """Sum a partition's values as they are now; what comes meanwhile is added beside."""
        sums = self._sums[partition] = {}
        count = 0
        for value in self._table.values_now(partition):
            add(sums, self._amounts(value))
            count += 1
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(_PAUSE_S)
                if generation != self._app.consumer_generation_id:
                    return
        self._summed.add(partition)
        log.debug("summed", table=self._table.name, partition=partition, values=count)


def activity(payment: bytes) -> Activity:
    """Return what stands posted for a payment as it is stored."""
    return standing_activity(PAYMENTS.decode(payment))


def anomalies(order: bytes) -> Mapping[str, int]:
    """Return what an order as it is stored adds to the orders by anomaly."""
    return counted(ORDERS.decode(order))


def counted(order: Order | None) -> dict[str, int]:
    """Return 1 under each anomaly that an order has, and under ``ANY_ANOMALY`` if it has one."""
    names = anomalies_of(order)
    return dict.fromkeys((ANY_ANOMALY, *names), 1) if names else {}
