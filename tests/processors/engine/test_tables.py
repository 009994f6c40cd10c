"""A table refuses a chunk that begins beyond the table's end; tables share the given memory."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from faust.stores.rocksdb import RocksDBOptions
from faust.types import TP

from ledger.digest import digest_of
from ledger.topics import TABLES
from processors.engine.chunk import FetchedRecord
from processors.engine.databases import NewRows, PartitionRows, rocksdb_options
from processors.engine.tables import (
    CLAIM_KEY,
    DIGEST_KEY,
    OFFSET_KEY,
    ChangelogChunk,
    ChangelogMismatchError,
    ChunkTable,
    StaleTableError,
)
from processors.settings import WorkerSettings
from processors.worker import create_app
from runtime.kafka.batches import Written
from tests.rows import write_rows

MIB = 1024 * 1024
DAY_S = 24 * 3600


def taken(options: dict[str, int]) -> int:
    """Return the bytes that one database may take: its caches, and all its write buffers."""
    buffers = options["write_buffer_size"] * options["max_write_buffer_number"]
    return options["block_cache_size"] + buffers


@pytest.mark.parametrize("partitions", [1, 4, 12])
@pytest.mark.parametrize("memory_mb", [48, 256, 4096])
def test_all_databases_together_stay_within_the_configured_memory(memory_mb, partitions):
    databases = len(TABLES) * partitions
    everything = databases * taken(rocksdb_options(memory_mb, databases))
    assert everything <= memory_mb * MIB
    assert everything > memory_mb * MIB * 0.9


def test_half_of_the_memory_is_for_caches_and_the_other_half_is_for_write_buffers():
    options = rocksdb_options(256, 4)
    assert options["block_cache_size"] == 32 * MIB
    assert options["write_buffer_size"] * options["max_write_buffer_number"] == 32 * MIB


def test_faust_accepts_every_option_and_uses_no_cache_sizes_of_its_own():
    options = RocksDBOptions(**rocksdb_options(256, 12))
    assert options.extra_options == {}
    assert options.block_cache_size < 11 * MIB
    assert options.max_write_buffer_number == 2


PARTITION = 1


@pytest.fixture
def table(tmp_path: Path) -> ChunkTable:
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=2)).chunk_tables["payments"]
    table.open(PARTITION)
    return table


def rows_of(table: ChunkTable) -> dict[bytes, bytes]:
    return table.scan(PARTITION, b"", 1000)


def chunk(
    table: ChunkTable, begin: int, end: int, *rows: tuple[int, bytes, bytes | None]
) -> ChangelogChunk:
    """Return a chunk of a table's changelog; each tuple in ``rows`` begins with an offset."""
    records = [FetchedRecord(key, value, PARTITION, offset, 0) for offset, key, value in rows]
    return ChangelogChunk(TP(table.changelog_name, PARTITION), begin, end, records)


def assert_holds(table: ChunkTable, end: int, rows: dict[bytes, bytes]) -> None:
    assert rows_of(table) == rows
    assert table.end(PARTITION) == end
    digest = table.held[PARTITION][1]
    assert digest is None or digest == digest_of(rows)


def test_a_chunk_that_begins_at_the_tables_end_is_applied(table):
    table.apply(chunk(table, 0, 2, (0, b"a", b"1"), (1, b"b", b"2")))
    table.apply(chunk(table, 2, 5, (2, b"a", b"3"), (3, b"c", b"4"), (4, b"b", None)))
    assert_holds(table, 5, {b"a": b"3", b"c": b"4"})


def test_a_gap_that_compaction_left_is_accepted(table):
    table.apply(chunk(table, 0, 20, (7, b"a", b"1"), (12, b"b", b"2")))
    assert_holds(table, 20, {b"a": b"1", b"b": b"2"})
    table.apply(chunk(table, 20, 30))
    assert_holds(table, 30, {b"a": b"1", b"b": b"2"})


def test_a_table_that_may_lack_dropped_tombstones_refuses_a_chunk_with_a_gap(table, monkeypatch):
    """The gap may have contained a tombstone; without a gap, no record is missing."""
    now_s = time.time()
    table.apply(chunk(table, 0, 9, (0, b"a", b"1"), (8, b"b", b"2")))
    monkeypatch.setattr("processors.engine.tables.time.time_ns", lambda: int((now_s + DAY_S) * 1e9))
    table.apply(chunk(table, 9, 10, (9, b"b", b"3")))
    with pytest.raises(StaleTableError, match="may lack tombstones that Kafka has dropped from"):
        table.apply(chunk(table, 10, 12, (11, b"b", b"4")))
    assert_holds(table, 10, {b"a": b"1", b"b": b"3"})
    # A table that was written a moment ago lacks no tombstone.
    table.drop(PARTITION)
    table.open(PARTITION)
    table.apply(chunk(table, 0, 12, (11, b"b", b"4")))
    assert_holds(table, 12, {b"b": b"4"})


@pytest.mark.parametrize("days", [-1, -365])
def test_a_table_whose_date_is_in_the_future_refuses_a_chunk_with_a_gap(table, monkeypatch, days):
    """If the clock is set back by days, the table's age is unknown; a few minutes do not matter."""
    now_s = time.time()
    table.apply(chunk(table, 0, 9, (0, b"a", b"1"), (8, b"b", b"2")))
    monkeypatch.setattr("processors.engine.tables.time.time_ns", lambda: int((now_s - 600) * 1e9))
    table.apply(chunk(table, 9, 11, (10, b"b", b"3")))
    corrected_s = now_s + days * DAY_S
    monkeypatch.setattr("processors.engine.tables.time.time_ns", lambda: int(corrected_s * 1e9))
    table.apply(chunk(table, 11, 12, (11, b"b", b"4")))
    with pytest.raises(StaleTableError, match="may lack tombstones that Kafka has dropped from"):
        table.apply(chunk(table, 12, 14, (13, b"b", b"5")))


def test_a_chunk_that_was_fetched_from_beyond_the_tables_end_is_refused(table):
    table.apply(chunk(table, 0, 1, (0, b"a", b"1")))
    with pytest.raises(ChangelogMismatchError, match=r"fetched from beyond the table's end, 1: "):
        table.apply(chunk(table, 2, 3, (2, b"b", b"2")))
    assert_holds(table, 1, {b"a": b"1"})


def test_records_below_the_tables_end_are_skipped(table):
    """A chunk that was fetched before a seek may be applied after the seek."""
    table.apply(chunk(table, 0, 2, (0, b"a", b"1"), (1, b"a", b"2")))
    table.apply(chunk(table, 0, 1, (0, b"a", b"1")))
    assert_holds(table, 2, {b"a": b"2"})
    table.apply(chunk(table, 0, 3, (0, b"a", b"1"), (1, b"a", b"2"), (2, b"b", b"3")))
    assert_holds(table, 3, {b"a": b"2", b"b": b"3"})


def test_a_chunk_of_a_different_table_is_refused(table):
    foreign = ChangelogChunk(TP("plexy-ledger-seen-changelog", PARTITION), 0, 1, [])
    with pytest.raises(ChangelogMismatchError, match="is not in plexy-ledger-payments-changelog"):
        table.apply(foreign)


def test_nothing_from_the_changelog_is_applied_to_a_partition_that_this_worker_folds(table):
    write_rows(table, PARTITION, {b"a": b"1"})
    with pytest.raises(ChangelogMismatchError, match="a partition that this worker folds"):
        table.apply(chunk(table, 1, 2, (1, b"a", b"0")))
    assert_holds(table, 1, {b"a": b"1"})


def test_a_partition_that_this_worker_does_not_fold_is_not_written(table):
    with pytest.raises(ChangelogMismatchError, match="is not folded by this worker"):
        table.write(PARTITION, NewRows(), Written(0, 0, 1))


@pytest.mark.parametrize(
    "written",
    [Written(2, 2, 1), Written(0, 0, 1), Written(1, 3, 2), Written(-1, -1, 1)],
    ids=["after a stranger's record", "again", "around a stranger's record", "without an offset"],
)
def test_a_fold_writes_only_rows_whose_changelog_records_begin_at_the_tables_end(table, written):
    write_rows(table, PARTITION, {b"a": b"1"})
    with pytest.raises(ChangelogMismatchError, match="but the table ends at 1: another program"):
        table.write(PARTITION, NewRows(), written)
    assert_holds(table, 1, {b"a": b"1"})


def test_a_write_with_two_values_for_a_key_is_refused(table):
    table.fold(PARTITION)
    rows = NewRows()
    rows.put(b"a", b"1", None)
    rows.put(b"a", b"2", None)
    with pytest.raises(ValueError, match="a key has two values in one write"):
        table.write(PARTITION, rows, Written(0, 1, 2))
    assert_holds(table, 0, {})


def test_a_claim_in_the_changelog_is_not_a_row(table):
    """A worker appends a claim to the changelog before the worker folds the partition."""
    table.apply(chunk(table, 0, 2, (0, CLAIM_KEY, None), (1, b"a", b"1")))
    assert_holds(table, 2, {b"a": b"1"})
    table.apply(chunk(table, 2, 3, (2, OFFSET_KEY, b"99")))
    assert_holds(table, 3, {b"a": b"1"})


def test_the_offset_and_the_digest_survive_a_restart(table):
    write_rows(table, PARTITION, {b"a": b"1", b"b": b"2"})
    table._held.clear()
    table.open(PARTITION)
    assert table.held[PARTITION] == (2, digest_of({b"a": b"1", b"b": b"2"}))


def test_folds_update_the_digest_and_an_applied_changelog_makes_the_digest_unknown(table):
    assert table.held[PARTITION] == (0, digest_of({}))
    write_rows(table, PARTITION, {b"a": b"1", b"b": b"2"})
    write_rows(table, PARTITION, {b"a": b"3", b"b": None})
    assert table.held[PARTITION] == (4, digest_of({b"a": b"3"}))
    table.fold_none()
    table.apply(chunk(table, 4, 5, (4, CLAIM_KEY, None)))
    assert table.held[PARTITION] == (5, digest_of({b"a": b"3"}))
    table.apply(chunk(table, 5, 6, (5, b"c", b"4")))
    assert table.held[PARTITION] == (6, None)


@pytest.mark.parametrize("stale", [None, b"1 12345 1"], ids=["without", "with an older one"])
def test_a_missing_digest_is_computed_from_a_snapshot_while_the_fold_continues(table, stale):
    """An earlier release writes rows and the offset, but leaves the digest missing or outdated."""
    write_rows(table, PARTITION, {b"a": b"1", b"b": b"2"})
    db = table._db(PARTITION)
    db.delete(DIGEST_KEY) if stale is None else db.put(DIGEST_KEY, stale)
    table._held.clear()
    write_rows(table, PARTITION, {b"c": b"3"})
    assert table.held[PARTITION] == (3, None)
    snapshot = table.snapshot(PARTITION)
    write_rows(table, PARTITION, {b"a": b"4", b"d": b"5"})
    found = digest_of(dict(snapshot.rows))
    assert (snapshot.end, found) == (3, digest_of({b"a": b"1", b"b": b"2", b"c": b"3"}))
    table.learn(PARTITION, snapshot, found)
    write_rows(table, PARTITION, {b"d": None})
    assert table.held[PARTITION] == (6, digest_of(rows_of(table)))
    assert len(rows_of(table)) == 3


def test_a_snapshot_gives_no_digest_if_a_changelog_was_applied_after_the_snapshot(table):
    table.apply(chunk(table, 0, 1, (0, b"a", b"1")))
    snapshot = table.snapshot(PARTITION)
    table.apply(chunk(table, 1, 2, (1, b"a", b"2")))
    table.learn(PARTITION, snapshot, digest_of(dict(snapshot.rows)))
    assert table.held[PARTITION] == (2, None)


async def test_a_rebalance_ends_all_folds_and_forgets_partitions_that_moved_to_other_workers(table):
    table.open(0)
    write_rows(table, PARTITION, {b"a": b"1"})
    gone = {TP(table.changelog_name, PARTITION)}
    table.app.assignor._standby_tps = set()
    await table.on_rebalance({TP(table.changelog_name, 0)}, gone, set())
    assert set(table.held) == {0}
    table.open(PARTITION)
    with pytest.raises(ChangelogMismatchError, match="is not folded by this worker"):
        table.write(PARTITION, NewRows(), Written(1, 1, 1))


def test_dropping_a_partition_deletes_its_folder(table, tmp_path):
    write_rows(table, PARTITION, {b"a": b"1"})
    folder = table.drop(PARTITION)
    assert not folder.exists()
    assert folder.name == "payments-1.db"
    assert tmp_path in folder.parents


async def test_a_table_that_is_being_read_is_emptied_only_after_the_reading_ends(table):
    """RocksDB writes into a deleted database's folder when the database's last reading ends."""
    # After the database is opened again, it has a file of rows, and its manifest names the file.
    write_rows(table, PARTITION, {b"a": b"1"})
    table.close(PARTITION)
    table.open(PARTITION)
    rows = table.rows_now(PARTITION)
    assert next(rows) == (b"a", b"1")
    emptying = asyncio.create_task(table.app.tables.recovery._empty(table, PARTITION))
    await asyncio.sleep(0.5)
    assert not emptying.done()
    assert not list(rows)
    del rows
    await emptying
    assert table.end(PARTITION) == 0
    assert table.is_empty(PARTITION)


def test_the_keys_of_a_range_are_read_in_ascending_or_descending_sequence(tmp_path: Path):
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=1)).chunk_tables["orders"]
    keys = [b"a", b"a\xffp1", b"a\xfft1", b"a\xfft2", b"a\xfft3", b"a\xffu", b"b"]
    write_rows(table, 0, dict.fromkeys(keys, b"row"))
    rows = PartitionRows(table, 0)
    for start, end in [
        (b"a\xfft", b"a\xffu"),
        (b"a\xfft1", b"a\xfft3"),
        (b"", b"\xfe"),
        (b"b", b"c"),
        (b"c", b"d"),
        (b"", b"a"),
    ]:
        expected = [key for key in keys if start <= key < end]
        assert list(rows.keys(start, end, backwards=False)) == expected
        assert list(rows.keys(start, end, backwards=True)) == expected[::-1]
    assert rows.get(b"a\xfft1") == b"row"
    assert rows.get(b"a\xfft4") is None


def test_a_table_written_by_the_old_rocksdb_binding_continues_at_its_end(tmp_path):
    """``faust-streaming-rocksdb`` wrote the table: 30 writes of 25 payments, with one restart."""
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=2)).chunk_tables["payments"]
    folder = Path(str(table.data.partition_path(PARTITION)))
    folder.mkdir(parents=True)
    old = Path(__file__).with_name("old_table.json").read_bytes()
    for name, content in msgspec.json.decode(old, type=dict[str, bytes]).items():
        (folder / name).write_bytes(content)
    table.open(PARTITION)
    rows = {b"pay_%d" % n: b"value %d of turn %d" % (n, n >= 10) for n in range(25)}
    assert_holds(table, 30, rows)
    write_rows(table, PARTITION, {b"pay_7": None})
    del rows[b"pay_7"]
    assert_holds(table, 31, rows)
