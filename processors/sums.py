"""Sums over a table of this worker, kept while it folds: what was posted, which anomalies stand.

In: a table, once for each partition that this worker is given; what each chunk changes from then
on. Out: a summary of each partition. Never: one that is ahead of the table or behind it: both
change in one step of the event loop, and a partition that takes over what another worker wrote is
summed anew. Never a store of its own: it could differ.
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

# As many payments, or orders, as are summed before the agents get their turn, some 2 ms, and
# the pause after them: a million payments take half a minute, in which the agents have two thirds
# of the time.
_AT_A_TIME: Final = 200
_PAUSE_S: Final = 0.004
_LOOK_EVERY_S: Final = 0.5


class Summary(Protocol):
    """What a partition's values come to."""

    def take(self, key: bytes, value: bytes) -> None:
        """Take in a row that the table holds."""

    def change(self, change: Any) -> None:
        """Take in what a chunk changed."""


S = TypeVar("S", bound=Summary)


class _Partition(msgspec.Struct, Generic[S]):
    """``meanwhile`` is what chunks changed while the values are read; ``None`` once all are."""

    summary: S
    meanwhile: list[Any] | None


class Sums(Generic[S]):
    """The summaries of the partitions that this worker folds, each begun as ``new()``.

    They outlive a rebalance: a partition that stays has the values that it had.
    """

    def __init__(self, app: Any, table: ChunkTable, partitions: int, new: Callable[[], S]) -> None:
        self._app = app
        self._table = table
        self._partitions = partitions
        self._new = new
        self._known: dict[int, _Partition[S]] = {}
        table.when_taken_over(self._forget)

    def changed(self, partition: int, change: Any) -> None:
        """Take in what a chunk changed, right after its values are in the table."""
        known = self._known.get(partition)
        if known is None:
            # It will be found in the table.
            return
        if known.meanwhile is None:
            known.summary.change(change)
        else:
            known.meanwhile.append(change)

    def of(self, partition: int) -> S | None:
        """Return a partition's summary; ``None`` while its values are still being summed."""
        known = self._known.get(partition)
        return known.summary if known is not None and known.meanwhile is None else None

    def here(self) -> list[S] | None:
        """Return those of all partitions that this worker folds; ``None`` if one is missing."""
        found = [self.of(partition) for partition in self.active]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else None

    @property
    def active(self) -> list[int]:
        """The partitions that this worker folds."""
        return [number for number in range(self._partitions) if self._table.is_active(number)]

    async def keep(self) -> None:
        """Sum each partition that this worker is given, until the app stops."""
        while not self._app.should_stop:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Sum what is not summed yet, and forget what is another worker's."""
        if self._app.rebalancing or self._app.in_recovery or not self._app.tables.actives_ready:
            return
        active = self.active
        for partition in self._known.keys() - set(active):
            self._forget(partition)
        for partition in active:
            # After a rebalance this worker may have others: their databases must not be opened.
            if partition not in self._known and not await self._sum(partition):
                return

    async def _sum(self, partition: int) -> bool:
        """Sum a partition's values as they are now, and then what chunks changed meanwhile.

        Return whether it could be done before a rebalance.
        """
        generation = self._app.consumer_generation_id
        known = self._known[partition] = _Partition(self._new(), [])
        count = 0
        for key, value in self._table.rows_now(partition):
            decode_row(self._table, partition, key, value, partial(known.summary.take, key))
            count += 1
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(_PAUSE_S)
                # What reads a database keeps it open; it may be another worker's now.
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


class Posted:
    """The sums of the entries that stand for the payments of a partition, by account and day."""

    def __init__(self) -> None:
        self.activity: dict[tuple[str, str, int], int] = {}

    def take(self, _key: bytes, value: bytes) -> None:
        """Add what stands posted for a payment as it is stored."""
        add(self.activity, standing_activity(PAYMENTS.decode(value)))

    def change(self, change: Activity) -> None:
        """Add what was posted."""
        add(self.activity, change)
