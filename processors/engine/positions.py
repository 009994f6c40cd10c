"""Where a source partition is read: from the commit, but never beyond what its table has folded.

Input: a partition's commit, the source mark of its table, and the offsets that Kafka still holds.
Output: the partition's position. Anyone may set a commit, and a changelog may have lost its end;
the commit then counts records that the table lacks. Folding a record twice changes nothing.
Invariant: no record is skipped. ``LostRecordsError`` ends a worker that would have to skip one.
"""

from typing import Final

import msgspec
import structlog
from faust.types import TP

from processors.engine.marks import Mark
from processors.engine.tables import ChunkTable

FOLD_ANEW: Final = "`plexy-ledger rebuild` folds the whole log of record anew"

log = structlog.get_logger(__name__)


class LostRecordsError(Exception):
    """A source lacks the records after those that were folded: the fold would have a hole."""


def other_record(source: TP, folded: Mark) -> LostRecordsError:
    """Return the error for a source that has another record where one was folded."""
    return LostRecordsError(
        f"{source.topic}[{source.partition}] has another record at offset {folded.offset} than the "
        f"one that was folded: it lost what it held, or was made anew. {FOLD_ANEW}"
    )


def cut_off(source: TP, end: int, written: int) -> LostRecordsError:
    """Return the error for a source that ends before records that an earlier hop has written."""
    return LostRecordsError(
        f"{source.topic}[{source.partition}] ends at offset {end}, and the workers have written it "
        f"up to {written}: it lost records, which may not be folded. {FOLD_ANEW}"
    )


class Position(msgspec.Struct):
    """How far a source partition is read.

    ``start`` is the offset at which this worker started, and ``next`` the one that is read next.
    ``last`` is the record before ``next``, where it is known, and ``leader_epoch`` an epoch under
    which the log is known to hold it. For ``compared_epoch`` that record is fetched once more.
    ``gap`` is the last gap in the fetched offsets.
    """

    start: int
    next: int
    last: Mark | None = None
    leader_epoch: int | None = None
    compared_epoch: int | None = None
    gap: tuple[int, int] | None = None


def starting(
    tp: TP, table: ChunkTable, committed: int | None, held: tuple[int, int], *, kept_forever: bool
) -> Position:
    """Return where a partition starts; ``held`` is the first offset in Kafka, and the end."""
    begin, end = held
    mark = table.folded(tp.partition)
    # An earlier version of this program kept no mark.
    unmarked = 0 if mark is None and table.is_empty(tp.partition) else None
    folded = unmarked if mark is None else mark.offset + 1
    if committed is None and begin > 0 and not kept_forever:
        # Kafka forgets the commits of a group that was empty for a week, and deletes these records
        # at the same age: the hop before this one would not publish them again.
        raise LostRecordsError(
            f"{tp.topic}[{tp.partition}] begins at offset {begin}, and nobody knows any more "
            f"whether what was before it is folded. {FOLD_ANEW}"
        )
    start = begin if committed is None else committed
    if folded is not None and (folded or committed):
        start = min(start, folded)
    furthest = max(start, committed or 0, folded or 0)
    if start < begin or furthest > end:
        raise LostRecordsError(
            f"{tp.topic}[{tp.partition}] is folded up to offset "
            f"{furthest if furthest > end else start}, and holds {begin} to {end}: records "
            f"were deleted before they were folded, or the topic was made anew. {FOLD_ANEW}"
        )
    if committed is not None and committed > start:
        log.warning(
            "commit beyond what is folded",
            topic=tp.topic,
            partition=tp.partition,
            committed=committed,
            folded=start,
        )
    return Position(start, start, mark if folded == start else None)
