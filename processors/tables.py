"""Tables that are read and written a chunk at a time.

In: keys; rows to write, and the offset of the changelog that they came with. Out: values, as bytes.
Rows and offset are one write of RocksDB's: all of it is there after a crash, or none. Who writes a
table's changelog, and when, is told in ``processors.effects``.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any, Final, cast

import faust
import rocksdb
from faust.stores.rocksdb import Store
from faust.types import TP, EventT

from processors.chunk import Chunk
from processors.watchers import Watchers

_MIB: Final = 1024 * 1024
# Where a database keeps up to where its changelog is in it. Faust's own key for it is text, and so
# may be an id from outside; this is none.
OFFSET_KEY: Final = b"\xff"
# Of a database: its files, and what is not in one yet.
_SIZES: Final = ("live-sst-files-size", "cur-size-all-mem-tables")
# Each database has two of them, and as much again as cache.
_WRITE_BUFFER_SHARE: Final = 4


# A row is 256 KiB at most, and a chunk may be of thousands of them: decoded, they take some ten
# times their bytes. So a chunk of many long rows is folded in parts.
_READ_AT_A_TIME: Final = 64
_MOST_READ_BYTES: Final = 16 * _MIB


class ChunkTooLargeError(Exception):
    """The rows that a chunk is about are too many bytes to be held at once."""


class ChunkTable(faust.Table[bytes, bytes]):
    """A Faust table with RocksDB, keys and values as bytes; its changelog has its name."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watchers = Watchers()
        self._when_taken_over: list[Callable[[int], None]] = []

    def when_taken_over(self, function: Callable[[int], None]) -> None:
        """Call a function with each partition that takes over what other workers wrote."""
        self._when_taken_over.append(function)

    def read_chunk(self, partition: int, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that the partition holds.

        ``ChunkTooLargeError`` if they are more than a worker has memory for, and of several keys.
        """
        wanted = list(set(keys) - {OFFSET_KEY})
        database, found, size = self._db(partition), dict[bytes, bytes](), 0
        for start in range(0, len(wanted), _READ_AT_A_TIME):
            if size > _MOST_READ_BYTES:
                raise ChunkTooLargeError(f"{size} bytes of {self.name}[{partition}]")
            some = wanted[start : start + _READ_AT_A_TIME]
            values = database.multi_get(some, as_dict=False)
            held = {k: value for k, value in zip(some, values, strict=True) if value is not None}
            found |= held
            size += sum(map(len, held.values()))
        return found

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return one key's value; ``None`` if the partition does not hold it."""
        value: bytes | None = self._db(partition).get(key)
        return value

    def scan(self, partition: int, after: bytes, limit: int) -> dict[bytes, bytes]:
        """Return what the partition holds under the next keys after one, in their order."""
        items = self._db(partition).iteritems()
        items.seek(after)
        others = {after, OFFSET_KEY}
        return dict(islice((item for item in items if item[0] not in others), limit))

    def rows_now(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Return all rows that the partition holds at this moment, whatever is written later."""
        items = self._db(partition).iteritems()
        items.seek_to_first()
        return (item for item in items if item[0] != OFFSET_KEY)

    def keys_between(
        self, partition: int, start: bytes, end: bytes, *, backwards: bool = False
    ) -> Iterator[bytes]:
        """Yield the keys from ``start`` on and below ``end``, in their order or from the last."""
        keys = self._db(partition).iterkeys()
        if backwards:
            keys.seek_for_prev(end)
            return takewhile(start.__le__, (key for key in reversed(keys) if key != end))
        keys.seek(start)
        return takewhile(end.__gt__, keys)

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

    def write(self, partition: int, rows: "Rows", offset: int) -> None:
        """Write rows, and up to where the changelog is in them, at once."""
        rows.put(OFFSET_KEY, str(offset).encode())
        self._db(partition).write(rows.batch)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]]) -> None:
        """Take chunks of the changelog over, in recovery and as a standby: a key's last one holds.

        An error ends the worker; Faust would log a warning, and go on with a hole in the table.
        """
        try:
            for event in batch:
                chunk = cast("Chunk", event.value)
                rows = Rows((cast("bytes", each.key), each.value) for each in chunk.records)
                self.write(chunk.partition, rows, chunk.next_offset - 1)
                for function in self._when_taken_over:
                    function(chunk.partition)
        except Exception as error:
            app = cast("Any", self.app)
            app.add_future(app.crash(error))
            raise

    def _new_changelog_topic(self, **_kwargs: Any) -> Any:
        """Declare the changelog as a topic that is read in chunks, as those of the agents are."""
        return cast("Any", self.app).chunked(self._changelog_topic_name())

    def _new_store(self) -> Any:
        store: Any = super()._new_store()
        store.offset_key = OFFSET_KEY
        return store

    def _db(self, partition: int) -> Any:
        store = cast("Store", self.data)
        return store._db_for_partition(partition)  # noqa: SLF001


def _property(db: Any, name: str) -> int:
    return int(db.get_property(f"rocksdb.{name}".encode()))


class Rows:
    """New values of a table, to be written at once, and all or none."""

    __slots__ = ("batch",)

    def __init__(self, values: Iterable[tuple[bytes, bytes | None]] = ()) -> None:
        self.batch: Any = rocksdb.WriteBatch()
        for key, value in values:
            self.put(key, value)

    def __bool__(self) -> bool:
        return bool(self.batch.count())

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a key's value; ``None`` deletes it."""
        if value is None:
            self.batch.delete(key)
        else:
            self.batch.put(key, value)


def write_buffers_bytes(memory_mb: int) -> int:
    """Return what all of a worker's databases write when each flushes one write buffer."""
    return memory_mb * _MIB // _WRITE_BUFFER_SHARE


def rocksdb_options(memory_mb: int, databases: int) -> dict[str, Any]:
    """Share ``memory_mb`` among a worker's databases: half for caches, half for write buffers.

    Faust's own default is 2.5 GB of cache per partition and table.
    """
    share = memory_mb * _MIB // databases
    return {
        "block_cache_size": share // 2,
        "block_cache_compressed_size": 0,
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
