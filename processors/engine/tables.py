"""Tables that are read and written a chunk at a time, and that check what they are asked to apply.

A table's changelog is its write-ahead log: the broker acknowledges the records first, then one
RocksDB write holds the rows, the changelog offset up to which they reach, and the digest of all
rows where it is known. So a table never lacks a record below its own offset:

- What a worker folds is read only where the partition is recovered, and is written only where the
  changelog records begin at the table's own end.
- What is read from the changelog is applied only if it is this table's, is fetched from an offset
  that is not beyond the table's end, and is not of a partition that is being folded. Records below
  the table's end are passed over.

Everything else raises ``ChangelogMismatchError``, which ends the worker. A table that was away for
so long that Kafka may have dropped tombstones which it lacks raises ``StaleTableError``, and has to
be read from scratch. Files that RocksDB finds damaged raise ``DamagedTableError``: each block is
compared with its checksum when it is read from disk, so that a flipped bit is never served or
folded. ``effects`` writes changelogs, and ``recovery`` reads them.
"""

import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final, cast

import faust
import msgspec
from faust.stores.rocksdb import Store
from faust.types import TP
from rocksdict import WriteBatch

from ledger.digest import RESERVED, Digest, RunningDigest, digest_of
from ledger.topics import TOMBSTONES_KEPT_MS
from processors.engine.chunk import FetchedRecord
from processors.engine.disk import DamagedTableError, is_damage, row_files
from processors.engine.marks import SOURCE_KEY, Mark
from processors.engine.watchers import Watchers
from runtime.kafka.batches import OutRecord, Written

_MIB: Final = 1024 * 1024
# Keys of a database that are no rows, and sort after all rows. Faust uses a text key for the
# offset, which an id from outside could equal.
OFFSET_KEY: Final = RESERVED
DIGEST_KEY: Final = RESERVED + b"digest"
SINCE_KEY: Final = RESERVED + b"since"
LAST_KEY: Final = RESERVED + b"last"
CLAIM_KEY: Final = RESERVED + b"claim"
"""The key of the changelog record by which a worker takes a partition over; see ``recovery``."""

# Kafka refuses records of more than an hour ahead of its own clock.
_CLOCKS_DIFFER_MS: Final = 3_600_000
_TOMBSTONES_KEPT_MS: Final = TOMBSTONES_KEPT_MS - _CLOCKS_DIFFER_MS

# The files of a database, and the write buffers that are not in a file yet.
_SIZES: Final = ("live-sst-files-size", "cur-size-all-mem-tables")
# Each database has two write buffers, and as much again as cache.
_WRITE_BUFFER_SHARE: Final = 4
# Rows that are read for a digest before anything else has its turn: about a millisecond.
_READ_AT_ONCE: Final = 1000
_REMEDY: Final = (
    "the worker ends; start it again, and it reads the changelog from where the table stands"
)


class ChangelogMismatchError(Exception):
    """Changelog records do not continue the table; the message names both offsets."""


class StaleTableError(Exception):
    """Kafka may have dropped tombstones that a partition lacks; it must be read from scratch."""


class ChangelogChunk(msgspec.Struct, frozen=True, gc=False):
    """Records of one changelog partition, fetched from offset ``begin`` up to before ``end``.

    Compaction leaves gaps, so that the first record may lie after ``begin``, and the last before
    ``end - 1``: between the two offsets there are no other records.
    """

    tp: TP
    begin: int
    end: int
    records: list[FetchedRecord]

    def __repr__(self) -> str:
        return f"{self.tp.topic}[{self.tp.partition}] {self.begin} to {self.end}"


class Snapshot(msgspec.Struct):
    """A partition at one moment: its rows below changelog offset ``end``, whatever comes later.

    ``digest`` is the digest that was kept up with the writes, where it is known. ``changes`` are
    the writes of a fold after this moment, where it is not.
    """

    end: int
    digest: Digest | None
    rows: Iterator[tuple[bytes, bytes]]
    changes: RunningDigest | None


class _Held(msgspec.Struct):
    """What a partition's database holds: its changelog below ``end``.

    It lacks no tombstone that was written before ``since_ms``, in Unix milliseconds. ``last`` is
    the last changelog record below ``end``, where it is known. ``changes`` is shared with the
    snapshot that a scrub is reading.
    """

    end: int
    since_ms: int
    last: Mark | None
    digest: Digest | None
    changes: RunningDigest | None = None


class ChunkTable(faust.Table[bytes, bytes]):
    """A Faust table with RocksDB, keys and values as bytes; its changelog has its name."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watchers = Watchers()
        self._when_taken_over: list[Callable[[int], None]] = []
        self._held: dict[int, _Held] = {}
        # The partitions that this worker folds, whose rows are the newest.
        self._folded: set[int] = set()

    def when_taken_over(self, function: Callable[[int], None]) -> None:
        """Call a function with each partition that takes over what other workers wrote."""
        self._when_taken_over.append(function)

    def read_chunk(self, partition: int, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that the partition holds."""
        wanted = [key for key in set(keys) if not key.startswith(RESERVED)]
        with self._intact(partition):
            found = self._db(partition).get(wanted)
        return {key: value for key, value in zip(wanted, found, strict=True) if value is not None}

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return one key's value; ``None`` if the partition does not hold it."""
        with self._intact(partition):
            value: bytes | None = self._db(partition).get(key)
        return value

    def scan(self, partition: int, after: bytes, limit: int) -> dict[bytes, bytes]:
        """Return the rows with the next keys after a key, in their order."""
        return dict(islice((row for row in self._rows(partition, after) if row[0] != after), limit))

    def rows_now(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Return all rows that the partition holds at this moment, whatever is written later."""
        return self._rows(partition)

    def keys_between(
        self, partition: int, start: bytes, end: bytes, *, backwards: bool = False
    ) -> Iterator[bytes]:
        """Yield the keys from ``start`` on and below ``end``, in their order or from the last."""
        if not backwards:
            return takewhile(end.__gt__, (key for key, _ in self._items(partition, start)))
        items = self._items(partition, end, backwards=True)
        return takewhile(start.__le__, (key for key, _ in items if key != end))

    def snapshot(self, partition: int) -> Snapshot:
        """Return the partition as it is at this moment."""
        held = self._held[partition]
        if held.digest is None:
            held.changes = RunningDigest()
        return Snapshot(held.end, held.digest, self._rows(partition), held.changes)

    def learn(self, partition: int, snapshot: Snapshot, digest: Digest) -> None:
        """Take the digest of a snapshot's rows for known, unless a changelog was applied since."""
        held = self._held.get(partition)
        changes = snapshot.changes
        if held is not None and changes is not None and held.changes is changes:
            held.digest = digest.plus(changes.now)
            held.changes = None

    def is_active(self, partition: int) -> bool:
        """Return whether this worker folds the partition, so that its state here is the newest."""
        tp = TP(self.changelog_name, partition)
        return bool(self.app.assignor.is_active(tp))

    def sizes(self) -> tuple[int, int]:
        """Return how many keys RocksDB takes its open partitions to hold, and in how many bytes."""
        dbs = list(cast("Store", self.data)._dbs.values())  # noqa: SLF001 - opens no other one
        keys = sum(_property(db, "estimate-num-keys") for db in dbs)
        return keys, sum(_property(db, each) for db in dbs for each in _SIZES)

    @property
    def changelog_name(self) -> str:
        """The topic that holds what the table holds."""
        return str(self.changelog_topic.get_topic_name())

    @property
    def held(self) -> Mapping[int, tuple[int, Digest | None]]:
        """The end of each partition that is open here, and its digest where that is known."""
        return {number: (held.end, held.digest) for number, held in self._held.items()}

    def end(self, partition: int) -> int:
        """Return the changelog offset below which the partition holds everything."""
        return self._held[partition].end

    def last(self, partition: int) -> Mark | None:
        """Return the last changelog record that the partition holds; ``None`` if it is not known.

        An earlier version of this program did not keep it.
        """
        return self._held[partition].last

    def folded(self, partition: int) -> Mark | None:
        """Return the last source record that the partition's rows follow from, where it is known.

        An earlier version of this program did not keep it, and an empty table has none.
        """
        stored = self.read(partition, SOURCE_KEY)
        return None if stored is None else Mark.decode(stored)

    def is_empty(self, partition: int) -> bool:
        """Return whether the partition has no rows."""
        return next(self._rows(partition), None) is None

    def open(self, partition: int) -> None:
        """Find out what a partition holds, before it is read or written."""
        if partition not in self._held:
            offset = self.read(partition, OFFSET_KEY)
            if offset is None:
                # The cleaner removes a value before it removes the tombstone behind it. So only a
                # tombstone that is written from now on can be missed.
                self._held[partition] = _Held(0, _now_ms(), None, Digest())
                return
            end = int(offset) + 1
            digest = stored_digest(self.read(partition, DIGEST_KEY), end)
            # An earlier version of this program kept no time.
            since_ms = int(self.read(partition, SINCE_KEY) or 0)
            last = _stored_last(self.read(partition, LAST_KEY), end)
            self._held[partition] = _Held(end, since_ms, last, digest)

    def fold(self, partition: int) -> None:
        """Note that the partition is folded here from now on: its changelog is only written."""
        self._folded.add(partition)

    def ensure_folded(self, partition: int) -> None:
        """Raise ``ChangelogMismatchError`` unless the partition is recovered, and folded here."""
        if partition not in self._folded:
            raise ChangelogMismatchError(
                f"{self.changelog_name}[{partition}] is not folded by this worker: {_REMEDY}"
            )

    def fold_none(self) -> None:
        """Note that no partition is folded here, as after a rebalance."""
        self._folded.clear()

    def write(self, partition: int, rows: "Rows", written: Written) -> None:
        """Write the rows of a folded chunk, whose changelog records were ``written``."""
        self.ensure_folded(partition)
        held = self._held[partition]
        if not written.is_contiguous or written.first != held.end:
            raise ChangelogMismatchError(
                f"{written.count} records were written to {self.changelog_name}[{partition}] as "
                f"offsets {written.first} to {written.last}, and the table ends at {held.end}: "
                f"another program writes there; {_REMEDY}"
            )
        if held.digest is not None:
            held.digest = held.digest.plus(rows.change())
        elif held.changes is not None:
            held.changes.now = held.changes.now.plus(rows.change())
        held.since_ms = _now_ms()
        held.last = None
        if (last := rows.last) is not None:
            rows.batch.put(last.key, last.value)
            held.last = Mark.of(written.last, last.timestamp_ms or 0, last.key, last.value)
        self._write(partition, held, rows.batch, written.last + 1)

    def apply(self, chunk: ChangelogChunk) -> None:
        """Apply changelog records that another worker wrote, in recovery or as a standby."""
        partition = chunk.tp.partition
        held = self._held[partition]
        self._require_next(chunk, held.end)
        if chunk.end <= held.end:
            return
        records = [record for record in chunk.records if record.offset >= held.end]
        is_compacted = len(records) < chunk.end - held.end
        # A time beyond now comes of a clock that was wrong then, or is wrong now.
        age_ms = _now_ms() - held.since_ms
        if is_compacted and not -_CLOCKS_DIFFER_MS <= age_ms <= _TOMBSTONES_KEPT_MS:
            raise StaleTableError(
                f"partition {partition} of the table {self.name} may lack tombstones that Kafka "
                f"has dropped from {chunk!r}; it is restored from scratch"
            )
        # Of several records of a key the last one holds.
        values = {_key_of(chunk, record): record.value for record in records}
        new = {key: value for key, value in values.items() if not key.startswith(RESERVED)}
        batch = WriteBatch(raw_mode=True)
        if (source := values.get(SOURCE_KEY)) is not None:
            batch.put(SOURCE_KEY, source)
        for key, value in new.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if new:
            # Reading the rows that these replace would take longer than writing them.
            held.digest = held.changes = None
        if records:
            held.since_ms = max(held.since_ms, records[-1].timestamp)
            held.last = records[-1].mark
        self._write(partition, held, batch, chunk.end)
        if new:
            for function in self._when_taken_over:
                function(partition)

    def drop(self, partition: int) -> Path:
        """Delete a partition's files, so that it is restored from its changelog.

        The worker must end, or ``open`` the partition anew, before anything is read or written.
        """
        store = cast("Store", self.data)
        store._dbs.pop(partition, None)  # noqa: SLF001
        self._held.pop(partition, None)
        folder = self.folder(partition)
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        for function in self._when_taken_over:
            function(partition)
        return folder

    def folder(self, partition: int) -> Path:
        """Return the folder that has the files of a partition."""
        return Path(str(cast("Store", self.data).partition_path(partition)))

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget what closed databases held: another worker may write the same changelog."""
        self.fold_none()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        for tp in revoked:
            if tp.topic == self.changelog_name:
                self._held.pop(tp.partition, None)

    def _require_next(self, chunk: ChangelogChunk, end: int) -> None:
        """Raise ``ChangelogMismatchError`` unless the chunk may be applied to a table's end."""
        partition = chunk.tp.partition
        if chunk.tp.topic != self.changelog_name:
            raise ChangelogMismatchError(f"{chunk!r} is not of {self.changelog_name}: {_REMEDY}")
        if partition in self._folded:
            raise ChangelogMismatchError(f"{chunk!r} is of a partition that is folded: {_REMEDY}")
        if chunk.begin > end:
            raise ChangelogMismatchError(
                f"{chunk!r} was fetched from beyond the table's end, {end}: {_REMEDY}"
            )

    def _write(self, partition: int, held: _Held, batch: WriteBatch, end: int) -> None:
        """Write rows, the new end, and what is known about them, all or none."""
        batch.put(OFFSET_KEY, b"%d" % (end - 1))
        batch.put(SINCE_KEY, b"%d" % held.since_ms)
        if held.digest is not None:
            batch.put(DIGEST_KEY, _encode_digest(end, held.digest))
        if held.last is not None:
            batch.put(LAST_KEY, b"%d %b" % (end, held.last.encode()))
        with self._intact(partition):
            self._db(partition).write(batch)
        held.end = end

    def _rows(self, partition: int, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Return the rows from a key on, as they are now."""
        return takewhile(lambda row: row[0] < RESERVED, self._items(partition, start))

    def _items(
        self, partition: int, start: bytes, *, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Return what stands in the database at this moment, from a key on or back from it."""
        with self._intact(partition):
            items = self._db(partition).iter()
            (items.seek_for_prev if backwards else items.seek)(start)
        return self._rest(partition, items, items.prev if backwards else items.next)

    def _rest(
        self, partition: int, items: Any, go_on: Callable[[], None]
    ) -> Iterator[tuple[bytes, bytes]]:
        # These names save a sixth of the time.
        is_valid, key, value = items.valid, items.key, items.value
        with self._intact(partition):
            while is_valid():
                yield key(), value()
                go_on()
            # Also a damaged block ends an iterator, and only its status tells.
            items.status()

    @contextmanager
    def _intact(self, partition: int) -> Iterator[None]:
        """Raise ``DamagedTableError`` where RocksDB finds the partition's files damaged."""
        try:
            yield
        except Exception as error:
            if not is_damage(error):
                raise
            raise DamagedTableError(self, partition, f"RocksDB can't read it: {error}") from error

    def _new_changelog_topic(self, **_kwargs: Any) -> Any:
        """Declare the changelog as a topic like those of the agents: its keys are bytes."""
        return cast("Any", self.app).chunked(self._changelog_topic_name())

    def _new_store(self) -> Any:
        store: Any = super()._new_store()
        store.offset_key = OFFSET_KEY
        # Faust opens databases by itself when partitions are assigned.
        open_database = store._open_for_partition  # noqa: SLF001

        def open_intact(partition: int) -> Any:
            with self._intact(partition):
                return open_database(partition)

        store._open_for_partition = open_intact  # noqa: SLF001
        return store

    def _db(self, partition: int) -> Any:
        store = cast("Store", self.data)
        return store._db_for_partition(partition)  # noqa: SLF001


async def digest_slowly(
    rows: Iterator[tuple[bytes, bytes]], pause: Callable[[], Awaitable[None]]
) -> Digest:
    """Return the digest of rows; ``pause`` is awaited after each thousand, or mebibyte, of them."""
    digest = Digest()
    for part in _parts(rows):
        digest = digest.plus(part)
        await pause()
    return digest


def digest_at_once(rows: Iterator[tuple[bytes, bytes]]) -> Digest:
    """Return the digest of rows without a pause, in the memory that a part of them takes."""
    return reduce(Digest.plus, _parts(rows), Digest())


def _parts(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[Digest]:
    """Yield the digests of a thousand rows, or of a mebibyte of them, at a time."""
    part: dict[bytes, bytes] = {}
    size = 0
    for key, value in rows:
        part[key] = value
        size += len(value)
        if len(part) == _READ_AT_ONCE or size >= _MIB:
            yield digest_of(part)
            part, size = {}, 0
    if part:
        yield digest_of(part)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _property(db: Any, name: str) -> int:
    return int(db.property_int_value(f"rocksdb.{name}"))


def _encode_digest(end: int, digest: Digest) -> bytes:
    return b"%d %d %d" % (end, digest.value, digest.rows)


def stored_digest(stored: bytes | None, end: int) -> Digest | None:
    """Decode what is stored as ``DIGEST_KEY``; ``None`` where it is not of this end.

    An earlier version of this program writes rows and leaves the digest as it is.
    """
    if stored is None:
        return None
    at, value, rows = map(int, stored.split())
    return Digest(value, rows) if at == end else None


def _stored_last(stored: bytes | None, end: int) -> Mark | None:
    """Decode what is stored as ``LAST_KEY``; ``None`` where it is not of this end, as a digest."""
    at, _, mark = (stored or b"").partition(b" ")
    return Mark.decode(mark) if at == b"%d" % end else None


class UnreadChangelogError(RuntimeError):
    """A changelog holds a record without a key, so that a table would lack something."""


def _key_of(chunk: ChangelogChunk, record: FetchedRecord) -> bytes:
    if record.key is None:
        raise UnreadChangelogError(
            f"{chunk.tp.topic}[{chunk.tp.partition}] can't be applied at offset {record.offset}: "
            f"{(record.value or b'')[:500].decode(errors='replace')!r} has no key. `plexy-ledger "
            "rebuild` folds the log of record into new tables"
        )
    return record.key


class Rows:
    """New values of a table, each key once, to be written all or none.

    ``last`` is the last changelog record of the write, which says how far the source is folded.
    """

    __slots__ = ("_after", "_before", "_deleted", "batch", "last")

    def __init__(self) -> None:
        self.batch = WriteBatch(raw_mode=True)
        self.last: OutRecord | None = None
        self._after: dict[bytes, bytes] = {}
        self._before: dict[bytes, bytes] = {}
        self._deleted = 0

    def put(self, key: bytes, value: bytes | None, before: bytes | None) -> None:
        """Set a key's value, where the table holds ``before``; ``None`` is no value."""
        if value is None:
            self.batch.delete(key)
            self._deleted += 1
        else:
            self.batch.put(key, value)
            self._after[key] = value
        if before is not None:
            self._before[key] = before

    def change(self) -> Digest:
        """Return by how much these rows change a table's digest."""
        if len(self._after) + self._deleted != len(self.batch):
            raise ValueError("a key has two values in one write")
        return digest_of(self._after).minus(digest_of(self._before))


def write_buffers_bytes(memory_mb: int) -> int:
    """Return what all of a worker's databases write when each flushes one write buffer."""
    return memory_mb * _MIB // _WRITE_BUFFER_SHARE


def rocksdb_options(memory_mb: int, databases: int) -> dict[str, Any]:
    """Share ``memory_mb`` among a worker's databases: half for caches, half for write buffers.

    The files that may be open are shared too. Faust's own defaults are 2.5 GB of cache and 943,719
    files per partition and table.
    """
    share = memory_mb * _MIB // databases
    return {
        "max_open_files": row_files(databases),
        "block_cache_size": share // 2,
        "write_buffer_size": share // _WRITE_BUFFER_SHARE,
        "max_write_buffer_number": 2,
        "bloom_filter_size": 10,
    }


class PartitionRows:
    """The rows of one partition of a table, as ``ledger.large_orders`` reads them."""

    def __init__(self, table: ChunkTable, partition: int) -> None:
        self._table = table
        self._partition = partition

    def get(self, key: bytes) -> bytes | None:
        """Return a row."""
        return self._table.read(self._partition, key)

    def keys(self, start: bytes, end: bytes, *, backwards: bool) -> Iterator[bytes]:
        """Yield the keys from ``start`` on and below ``end``, in their order or from the last."""
        return self._table.keys_between(self._partition, start, end, backwards=backwards)
