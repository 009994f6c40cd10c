"""The databases of a table: each partition has its own RocksDB database.

Invariant: a row is never returned if its block on disk does not match the block's checksum. RocksDB
checks each block that it reads from disk. If a block is damaged, ``DamagedTableError`` is raised,
which ends the worker.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final, cast

import faust
from faust.types import TP
from rocksdict import WriteBatch

from ledger.digest import RESERVED, Digest, digest_of
from processors.engine.disk import is_damage, row_files
from processors.engine.internals import Databases
from runtime.kafka.batches import OutRecord

_MIB: Final = 1024 * 1024
# RocksDB reports, as these properties, the size of a database's files, and the size of its write
# buffers in memory.
_SIZES: Final = ("live-sst-files-size", "cur-size-all-mem-tables")
# Each database has two write buffers, and a cache that is as large as both buffers together. So
# each buffer gets a quarter of the database's memory.
_WRITE_BUFFER_SHARE: Final = 4


class DamagedTableError(Exception):
    """A partition's files differ from the data written to them; the text names the partition."""

    def __init__(self, table: "StoredTable", partition: int, detail: str) -> None:
        super().__init__(
            f"partition {partition} of the table {table.name} is damaged: {detail}; its folder, "
            f"{table.folder(partition)}, is deleted, and the next start restores it from the "
            "changelog; check the disk"
        )
        self.table = table
        self.partition = partition
        self.detail = detail


class StoredTable(faust.Table[bytes, bytes]):
    """A Faust table whose keys and values are bytes, and which is read partition by partition."""

    def read_chunk(self, partition: int, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that the partition has."""
        wanted = [key for key in set(keys) if not key.startswith(RESERVED)]
        with self.intact(partition):
            found = self._db(partition).get(wanted)
        return {key: value for key, value in zip(wanted, found, strict=True) if value is not None}

    def read(self, partition: int, key: bytes) -> bytes | None:
        """Return a key's value; ``None`` if the partition does not have the key."""
        with self.intact(partition):
            value: bytes | None = self._db(partition).get(key)
        return value

    def scan(self, partition: int, after: bytes, limit: int) -> dict[bytes, bytes]:
        """Return the next rows after a key, sorted by key."""
        rows = self.rows_now(partition, after)
        return dict(islice((row for row in rows if row[0] != after), limit))

    def rows_now(self, partition: int, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Return the current rows, from a key on; later changes do not affect the iterator."""
        return takewhile(lambda row: row[0] < RESERVED, self._items(partition, start))

    def keys_between(
        self, partition: int, start: bytes, end: bytes, *, backwards: bool = False
    ) -> Iterator[bytes]:
        """Yield the keys from ``start`` until ``end`` (excluded), ascending or descending."""
        if not backwards:
            return takewhile(end.__gt__, (key for key, _ in self._items(partition, start)))
        items = self._items(partition, end, backwards=True)
        return takewhile(start.__le__, (key for key, _ in items if key != end))

    def is_empty(self, partition: int) -> bool:
        """Return whether the partition has no rows."""
        return next(self.rows_now(partition), None) is None

    def sizes(self) -> tuple[int, int]:
        """Return RocksDB's estimate of the number of keys, and the size in bytes."""
        dbs = self.databases.opened()
        keys = sum(_property(db, "estimate-num-keys") for db in dbs)
        return keys, sum(_property(db, each) for db in dbs for each in _SIZES)

    def close(self, partition: int) -> None:
        """Close a partition's database; its files stay open while an iterator reads its rows."""
        changelog = self.changelog_topic.get_topic_name()
        self.databases.revoke_partitions(self, {TP(changelog, partition)})

    def drop(self, partition: int) -> Path:
        """Close a partition's database, and delete its files; return the folder.

        The caller must first end every iterator over the rows, except if the worker exits right
        after this call. When an iterator ends later, RocksDB writes the deleted database's manifest
        into the folder, and by then the folder may belong to a new database.
        """
        self.close(partition)
        folder = self.folder(partition)
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return folder

    def folder(self, partition: int) -> Path:
        """Return the folder with the files of a partition."""
        return Path(str(self.databases.partition_path(partition)))

    @property
    def databases(self) -> Databases:
        """The databases of the partitions."""
        return cast("Databases", self.data)

    @contextmanager
    def intact(self, partition: int) -> Iterator[None]:
        """Raise ``DamagedTableError`` if RocksDB finds that the partition's files are damaged."""
        try:
            yield
        except Exception as error:
            if not is_damage(error):
                raise
            raise DamagedTableError(self, partition, f"RocksDB can't read it: {error}") from error

    def _db(self, partition: int) -> Any:
        return self.databases.of(partition)

    def _items(
        self, partition: int, start: bytes, *, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Return the current keys and values of a database, forwards or backwards from a key."""
        with self.intact(partition):
            items = self._db(partition).iter()
            (items.seek_for_prev if backwards else items.seek)(start)
        return self._rest(partition, items, items.prev if backwards else items.next)

    def _rest(
        self, partition: int, items: Any, go_on: Callable[[], None]
    ) -> Iterator[tuple[bytes, bytes]]:
        # Binding the methods to local names saves a sixth of the time.
        is_valid, key, value = items.valid, items.key, items.value
        with self.intact(partition):
            while is_valid():
                yield key(), value()
                go_on()
            # An iterator ends in the same way after the last row and at a damaged block. Only
            # `status` shows the difference: it raises an error after a damaged block.
            items.status()


class PartitionRows:
    """The rows of one partition, with the methods by which ``ledger.large_orders`` reads rows."""

    def __init__(self, table: StoredTable, partition: int) -> None:
        self._table = table
        self._partition = partition

    def get(self, key: bytes) -> bytes | None:
        """Return a key's value; ``None`` if the partition does not have the key."""
        return self._table.read(self._partition, key)

    def keys(self, start: bytes, end: bytes, *, backwards: bool) -> Iterator[bytes]:
        """Yield the keys from ``start`` until ``end`` (excluded), ascending or descending."""
        return self._table.keys_between(self._partition, start, end, backwards=backwards)


class NewRows:
    """New rows of a table, which are written together; each key occurs once.

    ``notes`` are records about the table as a whole, under reserved keys. They follow the rows in
    the changelog. The last note is the mark (``marks`` explains marks) of the last source record
    that was folded.
    """

    __slots__ = ("_after", "_before", "_deleted", "batch", "notes")

    def __init__(self) -> None:
        self.batch = WriteBatch(raw_mode=True)
        self.notes: list[OutRecord] = []
        self._after: dict[bytes, bytes] = {}
        self._before: dict[bytes, bytes] = {}
        self._deleted = 0

    def put(self, key: bytes, value: bytes | None, before: bytes | None) -> None:
        """Replace a key's value ``before`` with ``value``; ``None`` means no value."""
        if value is None:
            self.batch.delete(key)
            self._deleted += 1
        else:
            self.batch.put(key, value)
            self._after[key] = value
        if before is not None:
            self._before[key] = before

    def change(self) -> Digest:
        """Return the amount by which these rows change the table's digest."""
        if len(self._after) + self._deleted != len(self.batch):
            raise ValueError("a key has two values in one write")
        return digest_of(self._after).minus(digest_of(self._before))


def write_buffers_bytes(memory_mb: int) -> int:
    """Return the number of bytes that a worker writes when each database flushes one buffer."""
    return memory_mb * _MIB // _WRITE_BUFFER_SHARE


def rocksdb_options(memory_mb: int, databases: int) -> dict[str, Any]:
    """Share ``memory_mb`` among a worker's databases: half for caches, half for write buffers.

    The databases also share the limit on open files. Faust's defaults for each database are 2.5 GB
    of cache and 943,719 open files.
    """
    share = memory_mb * _MIB // databases
    return {
        "max_open_files": row_files(databases),
        "block_cache_size": share // 2,
        "write_buffer_size": share // _WRITE_BUFFER_SHARE,
        "max_write_buffer_number": 2,
        "bloom_filter_size": 10,
    }


def _property(db: Any, name: str) -> int:
    return int(db.property_int_value(f"rocksdb.{name}"))
