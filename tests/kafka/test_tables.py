"""A chunk's values are written to the changelog and then to RocksDB, whatever fails in between."""

import gc
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from ledger.deduplication import Seen
from ledger.wire import SEEN
from processors.engine import effects
from processors.engine.chunk import Chunk, RevokedError
from processors.engine.tables import ChunkTable
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from runtime.kafka.batches import PartitionBatches, send
from tests.fakes import until
from tests.kafka.harness import PARTITIONS
from tests.kafka.in_process import (
    WARNINGS_OF_FAUST,
    append,
    committed,
    end_of,
    keep,
    ready,
    running,
)

pytestmark = WARNINGS_OF_FAUST

VALUES = {b"key %d" % n: SEEN.encode(Seen(b"digest", 100 + n, 7)) for n in range(10)}
PARTITION = 1
# Each changelog begins with one record, which is the claim of the worker that folds the partition.
CLAIM = 1
# Each write ends with one record, which contains the offset up to which the source is folded.
SOURCE = 1

Write = Callable[[ChunkTable, Chunk], Awaitable[None]]
Outputs = Mapping[TopicPartition, PartitionBatches]


async def write_values(table: ChunkTable, chunk: Chunk) -> None:
    await keep(table, chunk, VALUES)


@asynccontextmanager
async def written(
    settings: WorkerSettings, write: Write = write_values, values: str = "chunk"
) -> AsyncIterator[ChunkTable]:
    """Run an app that has written one chunk of ``PARTITION`` into the table ``seen``."""
    worked = []
    app: LedgerApp

    async def work(chunk: Chunk) -> None:
        await write(app.chunk_tables["seen"], chunk)
        worked.append(chunk)

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, values)
        await until(lambda: worked or app.crashed)
        assert worked, app.crash_reason
        yield app.chunk_tables["seen"]


def changelog(table: ChunkTable, partition: int = PARTITION) -> TP:
    return TP(table.changelog_topic.get_topic_name(), partition)


def end_of_table(table: ChunkTable, partition: int = PARTITION) -> int:
    """Return the changelog offset up to which the table has applied all records."""
    return table.data.persisted_offset(changelog(table, partition)) + 1


def local(table: ChunkTable, partition: int = PARTITION) -> dict[bytes, bytes]:
    return table.read_chunk(partition, VALUES)


async def test_the_changelog_is_acknowledged_before_a_value_is_readable(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed_states: list[Any] = []

    async def observed(client: Any, outputs: Outputs) -> Any:
        observed_states.append((local(table), end_of_table(table)))
        offsets = await send(client, outputs)
        observed_states.append((local(table), end_of_table(table)))
        # Acknowledged records are in the changelog, where any worker can recover them.
        observed_states.extend([await end_of(settings, TP(*tp)) for tp in outputs])
        return offsets

    async def write(given: ChunkTable, chunk: Chunk) -> None:
        nonlocal table
        table = given
        await write_values(table, chunk)
        observed_states.append((local(table), end_of_table(table)))

    table: ChunkTable
    monkeypatch.setattr(effects, "send", observed)
    async with written(settings, write):
        end = CLAIM + len(VALUES) + SOURCE
        assert observed_states == [({}, CLAIM), ({}, CLAIM), end, (VALUES, end)]


async def test_values_that_the_changelog_refuses_are_not_readable(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> int:
        raise KafkaError("refused")

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        with pytest.raises(KafkaError, match="refused"):
            await write_values(table, chunk)

    monkeypatch.setattr(effects, "send", refused)
    async with written(settings, write) as table:
        assert (local(table), end_of_table(table)) == ({}, CLAIM)
        assert await end_of(settings, changelog(table)) == CLAIM


async def test_the_app_ends_and_nothing_is_committed_if_the_changelog_fails(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> int:
        raise KafkaError("refused")

    async def work(chunk: Chunk) -> None:
        await write_values(app.chunk_tables["seen"], chunk)

    monkeypatch.setattr(effects, "send", refused)
    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, "chunk")
        await until(lambda: app.crashed)
        assert "refused" in repr(app.crash_reason)
    assert await committed(settings, TP(app.names.webhooks, PARTITION)) == 0


async def test_values_of_a_partition_that_is_revoked_during_the_send_are_not_written(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner recovers the values.

    If this worker wrote the values to its table, the values would be ahead of the table's offset.
    """

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        async def revoked_meanwhile(client: Any, outputs: Outputs) -> Any:
            offsets = await send(client, outputs)
            chunk.generation -= 1
            return offsets

        monkeypatch.setattr(effects, "send", revoked_meanwhile)
        with pytest.raises(RevokedError):
            await write_values(table, chunk)

    async with written(settings, write) as table:
        assert (local(table), end_of_table(table)) == ({}, CLAIM)
        assert await end_of(settings, changelog(table)) == CLAIM + len(VALUES) + SOURCE


class _Database:
    """A partition's RocksDB, which counts the entries of each write."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.get = database.get
        self.writes: list[int] = []

    def write(self, batch: Any) -> None:
        self.writes.append(len(batch))
        self.database.write(batch)


async def test_values_and_the_changelogs_offset_are_written_to_rocksdb_in_one_write(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = []

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        databases.append(_Database(table._db(chunk.partition)))
        monkeypatch.setattr(table, "_db", lambda _: databases[0])
        await write_values(table, chunk)
        monkeypatch.undo()

    async with written(settings, write) as table:
        # The other 5 rows are the offset, the digest, the time, and two marks. One mark identifies
        # the last folded record of the source. The other mark identifies the last record of the
        # changelog.
        assert databases[0].writes == [len(VALUES) + 5]
        assert local(table) == VALUES
        assert end_of_table(table) == await end_of(settings, changelog(table))


async def test_the_stored_offset_is_the_offset_of_the_last_record_even_after_several_batches(
    settings: WorkerSettings,
) -> None:
    large = dict.fromkeys(VALUES, b"x" * 200_000)

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        for values in (large, {}, VALUES, large):
            await keep(table, chunk, values)
            assert end_of_table(table) == await end_of(settings, changelog(table))
            assert local(table) == (values or large)

    async with written(settings, write) as table:
        assert await end_of(settings, changelog(table)) == CLAIM + 3 * len(VALUES) + 4 * SOURCE


async def test_a_scan_continues_where_the_previous_scan_ended_and_returns_no_reserved_rows(
    settings: WorkerSettings,
) -> None:
    async with written(settings) as table:
        keys, after = [], b""
        while found := table.scan(PARTITION, after, 4):
            assert found == {key: VALUES[key] for key in found}
            keys.append(list(found))
            after = keys[-1][-1]
        in_order = sorted(VALUES)
        assert keys == [in_order[:4], in_order[4:8], in_order[8:]]
        assert table.scan(0, b"", 4) == {}


async def test_a_deleted_value_is_a_tombstone_in_the_changelog_and_is_not_recovered(
    settings: WorkerSettings,
) -> None:
    deleted = dict.fromkeys([b"key 3", b"key 4"])

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        await write_values(table, chunk)
        await keep(table, chunk, {**deleted, b"key 5": b"live"})

    left = {key: value for key, value in VALUES.items() if key not in deleted}
    left[b"key 5"] = b"live"
    async with written(settings, write) as table:
        assert local(table) == left
        assert await end_of(settings, changelog(table)) == CLAIM + len(VALUES) + 3 + 2 * SOURCE
    del table
    gc.collect()
    shutil.rmtree(settings.data_dir / "tables")

    async def read(table: ChunkTable, _chunk: Chunk) -> None:
        assert local(table) == left

    async with written(settings, read, "another chunk"):
        pass


async def test_only_the_chunk_s_own_partition_is_written(settings: WorkerSettings) -> None:
    async with written(settings) as table:
        for partition in range(PARTITIONS):
            here = partition == PARTITION
            assert local(table, partition) == (VALUES if here else {})
            end = await end_of(settings, changelog(table, partition))
            assert (
                end_of_table(table, partition)
                == end
                == CLAIM + (len(VALUES) + SOURCE if here else 0)
            )
            assert table.read(partition, b"key 3") == (VALUES[b"key 3"] if here else None)


async def test_a_recovery_completes_a_table_after_a_crash_between_the_writes_to_changelog_and_table(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer: Mapping[bytes, bytes] = {b"key 3": SEEN.encode(Seen(b"digest", 1, 7))}

    async def write(table: ChunkTable, chunk: Chunk) -> None:
        async def crashes_then(client: Any, outputs: Outputs) -> Any:
            await send(client, outputs)
            raise KafkaError("crashed")

        await write_values(table, chunk)
        monkeypatch.setattr(effects, "send", crashes_then)
        with pytest.raises(KafkaError, match="crashed"):
            await keep(table, chunk, newer)

    async with written(settings, write) as table:
        assert (local(table), end_of_table(table)) == (VALUES, CLAIM + len(VALUES) + SOURCE)
    # RocksDB unlocks a folder only when the last reference to the database is gone.
    del table
    gc.collect()

    async def read(table: ChunkTable, _chunk: Chunk) -> None:
        assert local(table) == VALUES | newer
        assert end_of_table(table) == CLAIM + len(VALUES) + 1 + 2 * SOURCE + CLAIM

    async with written(settings, read, "another chunk"):
        pass
