"""The sums of what this worker's payments have posted, kept while it folds.

In: the table ``payments``, once for each partition that this worker is given; what each chunk posts
from then on. Out: sums by account, currency and day. Never: a sum that is ahead of the table or
behind it: both change in one step of the event loop. Never a store of its own: it could differ.
"""

import asyncio
from typing import Any, Final

import structlog

from ledger.activity import Activity, add, standing_activity
from ledger.wire import PAYMENTS
from processors.tables import ChunkTable

log = structlog.get_logger(__name__)

# As many payments as are summed before the agents get their turn: some milliseconds.
_AT_A_TIME: Final = 200
_LOOK_EVERY_S: Final = 0.5


class Sums:
    """The sums of each partition that this worker folds; see ``of`` for when they are there."""

    def __init__(self, app: Any, table: ChunkTable, partitions: int) -> None:
        self._app = app
        self._table = table
        self._partitions = partitions
        self._sums: dict[int, dict[tuple[str, str, int], int]] = {}
        self._summed: set[int] = set()
        self._generation = -1

    def posted(self, partition: int, activity: Activity) -> None:
        """Add what a chunk posted, right after its payments are in the table."""
        # What is not being summed yet will be found in the table.
        if partition in self._sums:
            add(self._sums[partition], activity)

    def of(self, partition: int) -> Activity | None:
        """Return a partition's sums; ``None`` while its payments are still being summed."""
        return self._sums[partition] if partition in self._summed else None

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
        """Sum a partition's payments as they are now; what comes meanwhile is added beside."""
        sums = self._sums[partition] = {}
        count = 0
        for value in self._table.values_now(partition):
            add(sums, standing_activity(PAYMENTS.decode(value)))
            count += 1
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(0)
                if generation != self._app.consumer_generation_id:
                    return
        self._summed.add(partition)
        log.debug("summed", partition=partition, payments=count)
