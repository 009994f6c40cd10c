"""Summaries of this worker's tables, which the fold updates: posted amounts, and anomalies.

When this worker receives a partition, the partition's rows are read once. After that, each chunk's
changes are added. Invariant: a summary always agrees with its table. A summary and its table change
in the same step of the event loop. If another worker has written to a partition, the partition is
summed from scratch. A summary is never stored, because a stored summary could differ from its
table.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from ledger.accounting.activity import Activity, add, standing_activity
from ledger.wire import PAYMENTS
from processors.engine.tables import ChunkTable
from processors.rows import decode_row

log = structlog.get_logger(__name__)

# One step sums this many payments or orders in some 2 ms. Then the agents have their turn during a
# pause. A million payments take half a minute, of which the pauses are two thirds.
_AT_A_TIME: Final = 200
_PAUSE_S: Final = 0.004
_LOOK_EVERY_S: Final = 0.5


class Summary(Protocol):
    """The summary of a partition."""

    def take(self, key: bytes, value: bytes) -> None:
        """Add a row of the table."""

    def change(self, change: Any) -> None:
        """Apply the change of a chunk."""


S = TypeVar("S", bound=Summary)


class _Partition(msgspec.Struct, Generic[S]):
    """A summary; ``meanwhile`` collects the chunks' changes while the rows are being read.

    Once all rows are read, ``meanwhile`` is ``None``.
    """

    summary: S
    meanwhile: list[Any] | None


class Sums(Generic[S]):
    """The summaries of the partitions that this worker folds; ``new()`` creates each summary.

    If a partition stays with this worker through a rebalance, its summary is kept.
    """

    def __init__(self, app: Any, table: ChunkTable, partitions: int, new: Callable[[], S]) -> None:
        self._app = app
        self._table = table
        self._partitions = partitions
        self._new = new
        self._known: dict[int, _Partition[S]] = {}
        table.when_taken_over(self._forget)

    def changed(self, partition: int, change: Any) -> None:
        """Apply a chunk's change, right after the chunk's rows were written to the table."""
        known = self._known.get(partition)
        if known is None:
            # The first reading of the table will include this change.
            return
        if known.meanwhile is None:
            known.summary.change(change)
        else:
            known.meanwhile.append(change)

    def of(self, partition: int) -> S | None:
        """Return a partition's summary; ``None`` while its rows are still being summed."""
        known = self._known.get(partition)
        return known.summary if known is not None and known.meanwhile is None else None

    def here(self) -> list[S] | None:
        """Return the summaries of all partitions of this worker; ``None`` if one is missing."""
        found = [self.of(partition) for partition in self.active]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else None

    @property
    def active(self) -> list[int]:
        """The partitions that this worker folds."""
        return [number for number in range(self._partitions) if self._table.is_active(number)]

    async def keep(self) -> None:
        """Sum each new partition of this worker, until the app stops."""
        while not self._app.should_stop:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Sum the new partitions, and forget the partitions that this worker no longer has."""
        if self._app.rebalancing or self._app.in_recovery or not self._app.tables.actives_ready:
            return
        active = self.active
        for partition in self._known.keys() - set(active):
            self._forget(partition)
        for partition in active:
            # If a rebalance interrupts a sum, ``active`` is outdated. The loop ends then, because
            # it would open partitions that this worker has lost.
            if partition not in self._known and not await self._sum(partition):
                return

    async def _sum(self, partition: int) -> bool:
        """Sum a partition's rows, then apply the changes that chunks made in the meantime.

        Return ``False`` if a rebalance interrupted the sum.
        """
        generation = self._app.consumer_generation_id
        known = self._known[partition] = _Partition(self._new(), [])
        count = 0
        for key, value in self._table.rows_now(partition):
            decode_row(self._table, partition, key, value, partial(known.summary.take, key))
            count += 1
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(_PAUSE_S)
                # The iterator keeps the database open, so the summing stops if this worker may
                # lose the partition.
                if generation != self._app.consumer_generation_id or self._app.rebalancing:
                    self._forget(partition)
                if self._known.get(partition) is not known:
                    return False
        for change in known.meanwhile or ():
            known.summary.change(change)
        known.meanwhile = None
        log.debug("summed", table=self._table.name, partition=partition, values=count)
        return True

    def _forget(self, partition: int) -> None:
        self._known.pop(partition, None)


class PostedSums:
    """The sums of a partition's standing entries, by account, currency and day.

    An entry is standing if it is posted and not reversed.
    """

    def __init__(self) -> None:
        self.activity: dict[tuple[str, str, int], int] = {}

    def take(self, _key: bytes, value: bytes) -> None:
        """Add the standing entries of a stored payment."""
        add(self.activity, standing_activity(PAYMENTS.decode(value)))

    def change(self, change: Activity) -> None:
        """Add the amounts that a chunk posted."""
        add(self.activity, change)
