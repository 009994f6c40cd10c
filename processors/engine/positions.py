"""The position at which a worker starts to read a source partition.

A worker starts at the lower of two offsets: the committed offset, and the offset up to which the
table is folded. Input: a partition's committed offset, the mark (``marks`` explains marks) of the
last record that was folded into the partition's table, and the offsets that Kafka still has.

An operator may change a committed offset, and a changelog may lose its last records. In both cases,
records before the committed offset may be missing in the table. These records are folded again;
that is safe, because folding a record twice changes nothing. Invariant: no record is skipped. If
the worker would have to skip a record, ``LostRecordsError`` ends the worker.

A table that has lost records is not served until it is folded up to its former offset again.
"""

from typing import Final

import msgspec
import structlog
from faust.types import TP

from processors.engine.marks import Mark
from processors.engine.tables import ChunkTable

REBUILD: Final = "`plexy-ledger rebuild` folds the whole log of record from scratch"

log = structlog.get_logger(__name__)


class LostRecordsError(Exception):
    """A source lacks records that the fold needs next."""


def other_record(source: TP, folded: Mark) -> LostRecordsError:
    """Return the error for a source that has a different record at a folded record's offset."""
    return LostRecordsError(
        f"{source.topic}[{source.partition}] no longer has the record that was folded at offset "
        f"{folded.offset}: the topic lost records, or was recreated. {REBUILD}"
    )


def cut_off(source: TP, end: int, written: int) -> LostRecordsError:
    """Return the error for a source that ends before records that an earlier hop has written."""
    return LostRecordsError(
        f"{source.topic}[{source.partition}] ends at offset {end}, but the workers have written up "
        f"to {written}: the topic lost records, perhaps before they were folded. {REBUILD}"
    )


class Position(msgspec.Struct):
    """The position of a source partition.

    ``start`` is the offset at which this worker started. ``next`` is the offset to read next.
    ``last`` is the mark of the record before ``next``, if known. ``leader_epoch`` is an epoch in
    which the log is known to contain that record; each leader of a partition has its own epoch.
    While ``compared_epoch`` is set, the worker fetches that record again, to compare it with
    ``last`` in this epoch. ``gap`` is the last gap in the fetched offsets. ``had`` is the offset up
    to which the partition was folded before its table lost records, or 0 if the table has lost no
    records.
    """

    start: int
    next: int
    last: Mark | None = None
    had: int = 0
    leader_epoch: int | None = None
    compared_epoch: int | None = None
    gap: tuple[int, int] | None = None


def starting(
    tp: TP, table: ChunkTable, committed: int | None, held: tuple[int, int], *, kept_forever: bool
) -> Position:
    """Return the position at which to start; ``held`` has the source's first offset and end."""
    begin, end = held
    mark = table.folded(tp.partition)
    # Without a mark, it is unknown which records are in the rows, so all records are folded again.
    folded = 0 if mark is None else mark.offset + 1
    if committed is None and begin > 0 and not kept_forever:
        # Kafka forgets the commits of a group that has been empty for a week. After a week, Kafka
        # also deletes the records that a hop has published, and that hop would not publish them
        # again.
        raise LostRecordsError(
            f"{tp.topic}[{tp.partition}] begins at offset {begin}, and it is unknown "
            f"whether the earlier records were folded. {REBUILD}"
        )
    start = begin if committed is None else committed
    if folded or committed:
        start = min(start, folded)
    furthest = max(start, committed or 0, folded)
    if start < begin or furthest > end:
        raise LostRecordsError(
            f"{tp.topic}[{tp.partition}] is folded up to offset "
            f"{furthest if furthest > end else start}, but holds {begin} to {end}: records "
            f"were deleted before they were folded, or the topic was recreated. {REBUILD}"
        )
    if committed is not None and committed > start:
        log.warning(
            "commit beyond the folded records",
            topic=tp.topic,
            partition=tp.partition,
            committed=committed,
            folded=start,
        )
    # Records that the source itself has lost can't be folded again, so ``had`` is at most the
    # source's end.
    had = min(max(committed or 0, table.had(tp.partition)), end)
    last = mark if folded == start else None
    return Position(start, start, last, had if had > folded else 0)
