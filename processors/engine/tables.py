"""Tables that are read and written one chunk at a time, and that verify each change.

A table's changelog is its write-ahead log. First, the broker acknowledges the changelog's records.
Then one RocksDB write stores the rows, the changelog offset up to which the rows are complete, and
the digest of all rows, if it is known. So a table never lacks a record below its own offset:

- A folded chunk is written only if the partition is recovered, and if the chunk's changelog records
  begin at the table's own end.
- A record that is read from the changelog is applied only if it belongs to this table, was fetched
  from an offset that is not beyond the table's end, and does not belong to a partition that this
  worker folds. Records below the table's end are skipped.

If records break these rules, ``ChangelogMismatchError`` is raised, which ends the worker.

``StaleTableError`` is raised in two cases, and then the table is restored from scratch. In the
first case, the table was offline for so long that Kafka may have dropped tombstones (records that
delete a key) before the table could apply them. In the second case, the table's files lack the
changelog offset that the rows belong to, or the value of a reserved key is unreadable.

``effects`` writes changelogs, and ``recovery`` reads changelogs.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from faust.types import TP
from rocksdict import WriteBatch

from ledger.digest import RESERVED, Digest, RunningDigest
from ledger.topics import TOMBSTONES_KEPT_MS
from processors.engine.chunk import FetchedRecord
from processors.engine.databases import NewRows, StoredTable
from processors.engine.internals import Databases
from processors.engine.marks import FED_KEY, HAD_KEY, SOURCE_KEY, Mark, decode_ends
from processors.engine.watchers import Watchers
from runtime.kafka.batches import Written

# Under its reserved keys, a database stores values that are not rows. These keys sort after the
# keys of all rows.
OFFSET_KEY: Final = Databases.offset_key
DIGEST_KEY: Final = RESERVED + b"digest"
SINCE_KEY: Final = RESERVED + b"since"
LAST_KEY: Final = RESERVED + b"last"
# `HAD_KEY` is applied separately, because its value never decreases.
_NOTES: Final = frozenset({SOURCE_KEY, FED_KEY})
CLAIM_KEY: Final = RESERVED + b"claim"
"""The key of the changelog record with which a worker takes over a partition; see ``recovery``."""

# Kafka refuses records that are more than an hour ahead of its own clock.
_CLOCKS_DIFFER_MS: Final = 3_600_000
_TOMBSTONES_KEPT_MS: Final = TOMBSTONES_KEPT_MS - _CLOCKS_DIFFER_MS

_REMEDY: Final = (
    "the worker ends; start it again, and it reads the changelog from the table's end on"
)

T = TypeVar("T")


class ChangelogMismatchError(Exception):
    """Changelog records do not fit the table; the message names the place and the remedy."""


class StaleTableError(Exception):
    """A table's partition can't be updated from its changelog; it must be restored from scratch."""


class ChangelogChunk(msgspec.Struct, frozen=True, gc=False):
    """All records of a changelog partition from offset ``begin`` until ``end`` (excluded).

    Compaction leaves gaps, so the first record may have an offset above ``begin``, and the last
    record an offset below ``end - 1``.
    """

    tp: TP
    begin: int
    end: int
    records: list[FetchedRecord]

    def __repr__(self) -> str:
        return f"{self.tp.topic}[{self.tp.partition}] {self.begin} to {self.end}"


class TableSnapshot(msgspec.Struct):
    """The state of a partition at changelog offset ``end``; later changes do not affect ``rows``.

    ``digest`` is the digest of the rows that were written. If this digest is not known, ``digest``
    is ``None``, and ``changes`` collects the effect of the fold's later writes on the digest.
    """

    end: int
    digest: Digest | None
    rows: Iterator[tuple[bytes, bytes]]
    changes: RunningDigest | None


class _Held(msgspec.Struct):
    """The state of an open partition, which has all changelog records below ``end``.

    The partition has applied all tombstones that were written before ``since_ms``, in Unix
    milliseconds. ``last`` is the mark of the last changelog record below ``end``, if it was noted.
    ``changes`` is the same object as in a scrub's snapshot. ``had`` is the source offset up to
    which the partition was folded before it lost records, or 0 if it lost none.
    """

    end: int
    since_ms: int
    last: Mark | None
    digest: Digest | None
    changes: RunningDigest | None = None
    had: int = 0


class ChunkTable(StoredTable):
    """A table with a changelog; chunks of the topic ``source`` are folded into the table."""

    def __init__(self, *args: Any, source: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.source = source
        self.watchers = Watchers()
        # The topic that this table's hop writes for the next hop; ``None`` if there is no next hop.
        self.feeds: str | None = None
        self._when_taken_over: list[Callable[[int], None]] = []
        self._before_folds: list[Callable[[int], None]] = []
        self._held: dict[int, _Held] = {}
        # The partitions that this worker folds. No other worker has newer rows of these partitions.
        self._folded: set[int] = set()

    def before_folds(self, function: Callable[[int], None]) -> None:
        """Register a function to call with each restored partition before this worker folds it."""
        self._before_folds.append(function)

    def when_taken_over(self, function: Callable[[int], None]) -> None:
        """Register a function to call with each partition whose rows change without our fold.

        The rows change in this way when another worker's records are applied, and when the
        partition's files are deleted.
        """
        self._when_taken_over.append(function)

    def snapshot(self, partition: int) -> TableSnapshot:
        """Return a snapshot of the partition's current state."""
        held = self._held[partition]
        if held.digest is None:
            held.changes = RunningDigest()
        return TableSnapshot(held.end, held.digest, self.rows_now(partition), held.changes)

    def learn(self, partition: int, snapshot: TableSnapshot, digest: Digest) -> None:
        """Adopt a snapshot's digest, unless changelog records were applied after the snapshot.

        ``digest`` is the digest that a scrub has computed from the rows on disk.
        """
        held = self._held.get(partition)
        changes = snapshot.changes
        if held is not None and changes is not None and held.changes is changes:
            held.digest = digest.plus(changes.now)
            held.changes = None

    def is_active(self, partition: int) -> bool:
        """Return whether this worker folds the partition; if it does, its table is up to date."""
        tp = TP(self.changelog_name, partition)
        return bool(self.app.assignor.is_active(tp))

    @property
    def changelog_name(self) -> str:
        """The name of the table's changelog topic."""
        return str(self.changelog_topic.get_topic_name())

    @property
    def held(self) -> Mapping[int, tuple[int, Digest | None]]:
        """The end and the digest of each open partition; ``None`` if the digest is not known."""
        return {number: (held.end, held.digest) for number, held in self._held.items()}

    def end(self, partition: int) -> int:
        """Return the changelog offset below which the partition holds all records."""
        return self._held[partition].end

    def last(self, partition: int) -> Mark | None:
        """Return the mark of the partition's last changelog record, if a worker has noted it."""
        return self._held[partition].last

    def folded(self, partition: int) -> Mark | None:
        """Return the mark of the partition's last folded source record, if a worker noted it."""
        return self._note(partition, SOURCE_KEY, Mark.decode)

    def fed(self, partition: int) -> dict[int, int]:
        """Return the ends of the partitions of ``feeds``, by number.

        Each end is the offset after the last record that was written there from this partition.
        """
        return self._note(partition, FED_KEY, decode_ends) or {}

    def had(self, partition: int) -> int:
        """Return the source offset up to which a partition was folded before it lost records."""
        return self._held[partition].had

    def note_had(self, partition: int, offset: int) -> None:
        """Store how far the partition was once folded.

        So even after a restart, the partition is not served until it is folded that far again.
        """
        held = self._held[partition]
        if offset > held.had:
            held.had = offset
            self._db(partition).put(HAD_KEY, b"%d" % offset)

    def open(self, partition: int) -> None:
        """Load a partition's state, before the partition is read or written.

        Raise ``StaleTableError`` if it is unknown which changelog records are in the rows.
        """
        if partition not in self._held:
            self.folded(partition), self.fed(partition)
            had = self._note(partition, HAD_KEY, int) or 0
            offset = self._note(partition, OFFSET_KEY, int)
            if offset is None:
                if not self.is_empty(partition):
                    raise StaleTableError(_unmarked(self, partition, "rows, but no offset"))
                # Kafka removes a tombstone only after the older values of the same key. So if Kafka
                # has already removed a tombstone, an empty table does not need that tombstone.
                self._held[partition] = _Held(0, _now_ms(), None, Digest(), had=had)
                return
            end = offset + 1
            digest = self._note(partition, DIGEST_KEY, partial(stored_digest, end=end))
            # An earlier release did not store this time.
            since_ms = self._note(partition, SINCE_KEY, int) or 0
            last = self._note(partition, LAST_KEY, partial(_stored_last, end=end))
            self._held[partition] = _Held(end, since_ms, last, digest, had=had)

    def fold(self, partition: int) -> None:
        """Note that this worker folds the partition, so that its changelog is no longer applied."""
        for function in self._before_folds:
            function(partition)
        self._folded.add(partition)

    def ensure_folded(self, partition: int) -> None:
        """Raise ``ChangelogMismatchError`` unless this worker folds the partition."""
        if partition not in self._folded:
            raise ChangelogMismatchError(
                f"{self.changelog_name}[{partition}] is not folded by this worker: {_REMEDY}"
            )

    def fold_none(self) -> None:
        """Note that this worker folds no partition; a rebalance has this effect."""
        self._folded.clear()

    def write(self, partition: int, rows: NewRows, written: Written) -> None:
        """Write a folded chunk's rows; ``written`` locates the chunk's changelog records."""
        self.ensure_folded(partition)
        held = self._held[partition]
        if not written.is_contiguous or written.first != held.end:
            raise ChangelogMismatchError(
                f"{written.count} records were written to {self.changelog_name}[{partition}] as "
                f"offsets {written.first} to {written.last}, but the table ends at {held.end}: "
                f"another program writes to this changelog; {_REMEDY}"
            )
        if held.digest is not None:
            held.digest = held.digest.plus(rows.change())
        elif held.changes is not None:
            held.changes.now = held.changes.now.plus(rows.change())
        held.since_ms = _now_ms()
        held.last = None
        for note in rows.notes:
            rows.batch.put(note.key, note.value)
            held.last = Mark.of(written.last, note.timestamp_ms or 0, note.key, note.value)
        self._write(partition, held, rows.batch, written.last + 1)

    def apply(self, chunk: ChangelogChunk) -> None:
        """Apply changelog records of another worker; recovery and standby tables need this."""
        partition = chunk.tp.partition
        held = self._held[partition]
        self._require_next(chunk, held.end)
        if chunk.end <= held.end:
            return
        records = [record for record in chunk.records if record.offset >= held.end]
        is_compacted = len(records) < chunk.end - held.end
        # If ``since_ms`` is in the future, the clock was wrong when that time was stored, or it is
        # wrong now.
        age_ms = _now_ms() - held.since_ms
        if is_compacted and not -_CLOCKS_DIFFER_MS <= age_ms <= _TOMBSTONES_KEPT_MS:
            raise StaleTableError(
                f"partition {partition} of the table {self.name} may lack tombstones that Kafka "
                f"has dropped from {chunk!r}; the partition is restored from scratch"
            )
        # If a key has several records, the last one counts.
        values = {_key_of(chunk, record): record.value for record in records}
        new = {key: value for key, value in values.items() if not key.startswith(RESERVED)}
        batch = WriteBatch(raw_mode=True)
        for key, value in (new | {key: values[key] for key in _NOTES & values.keys()}).items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if new:
            # The digest is unknown from now on. To update it, the worker would have to read all
            # rows that are replaced, which is slow.
            held.digest = held.changes = None
        held.had = max(held.had, int(values.get(HAD_KEY) or 0))
        if records:
            held.since_ms = max(held.since_ms, records[-1].timestamp)
            held.last = records[-1].mark
        self._write(partition, held, batch, chunk.end)
        if new:
            for function in self._when_taken_over:
                function(partition)

    def close(self, partition: int) -> None:
        """Close a partition's database, and forget its state, until the next ``open``."""
        super().close(partition)
        self._held.pop(partition, None)

    def drop(self, partition: int) -> Path:
        """Delete a partition's files, so that it is restored from its changelog.

        After that, the worker must end, or call ``open`` before it uses the partition again.
        """
        folder = super().drop(partition)
        for function in self._when_taken_over:
            function(partition)
        return folder

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget the state of closed databases: another worker may write their changelogs."""
        self.fold_none()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        for tp in revoked:
            if tp.topic == self.changelog_name:
                self._held.pop(tp.partition, None)

    def _require_next(self, chunk: ChangelogChunk, end: int) -> None:
        """Raise ``ChangelogMismatchError`` unless the chunk continues a table with this end."""
        partition = chunk.tp.partition
        if chunk.tp.topic != self.changelog_name:
            raise ChangelogMismatchError(f"{chunk!r} is not in {self.changelog_name}: {_REMEDY}")
        if partition in self._folded:
            raise ChangelogMismatchError(
                f"{chunk!r} belongs to a partition that this worker folds: {_REMEDY}"
            )
        if chunk.begin > end:
            raise ChangelogMismatchError(
                f"{chunk!r} was fetched from beyond the table's end, {end}: {_REMEDY}"
            )

    def _note(self, partition: int, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        """Return the decoded value of a reserved key; ``None`` if the key has no value.

        Raise ``StaleTableError`` if no release of this program can have written the value.
        """
        stored = self.read(partition, key)
        try:
            return None if stored is None else decode(stored)
        except (TypeError, ValueError) as error:
            name = key.removeprefix(RESERVED).decode() or "offset"
            why = _unmarked(self, partition, f"an unreadable note {name!r} ({error})")
            raise StaleTableError(why) from error

    def _write(self, partition: int, held: _Held, batch: WriteBatch, end: int) -> None:
        """Write rows, the new end, and the values of the reserved keys, in one atomic write."""
        batch.put(OFFSET_KEY, b"%d" % (end - 1))
        batch.put(SINCE_KEY, b"%d" % held.since_ms)
        if held.digest is not None:
            batch.put(DIGEST_KEY, b"%d %d %d" % (end, held.digest.value, held.digest.rows))
        if held.had:
            batch.put(HAD_KEY, b"%d" % held.had)
        if held.last is not None:
            batch.put(LAST_KEY, b"%d %b" % (end, held.last.encode()))
        with self.intact(partition):
            self._db(partition).write(batch)
        held.end = end


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _unmarked(table: ChunkTable, partition: int, what: str) -> str:
    place = f"partition {partition} of the table {table.name}"
    return f"{place} has {what}, so it is unknown which changelog records its rows contain"


def stored_digest(stored: bytes | None, end: int) -> Digest | None:
    """Decode the value of ``DIGEST_KEY``; return ``None`` if it is not the digest at ``end``.

    An earlier release of this program may have written rows without updating the digest.
    """
    if stored is None:
        return None
    at, value, rows = map(int, stored.split())
    return Digest(value, rows) if at == end else None


def _stored_last(stored: bytes | None, end: int) -> Mark | None:
    """Decode the value of ``LAST_KEY``; return ``None`` if it was not stored at ``end``."""
    at, _, mark = (stored or b"").partition(b" ")
    return Mark.decode(mark) if at == b"%d" % end else None


class UnreadChangelogError(RuntimeError):
    """A changelog has a record that has no key; such a record can't be applied to a table."""


def _key_of(chunk: ChangelogChunk, record: FetchedRecord) -> bytes:
    if record.key is None:
        raise UnreadChangelogError(
            f"{chunk.tp.topic}[{chunk.tp.partition}] can't be applied at offset {record.offset}: "
            f"{(record.value or b'')[:500].decode(errors='replace')!r} has no key. `plexy-ledger "
            "rebuild` folds the log of record into new tables"
        )
    return record.key
