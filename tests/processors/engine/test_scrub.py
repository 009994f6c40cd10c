"""A scrub finds lost, added and changed rows; the partition is then restored from scratch.

A scrub reads all rows of a partition, and compares them with the digest that the worker keeps.
"""

import asyncio
import gc
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import processors.engine.scrub
from processors.engine.databases import DamagedTableError
from processors.engine.disk import explain
from processors.engine.scrub import Scrubber
from processors.engine.tables import DIGEST_KEY, ChunkTable
from processors.settings import WorkerSettings
from processors.worker import create_app
from tests.fakes import until
from tests.rows import write_rows

PARTITION = 1
ROWS = {b"key %04d" % n: os.urandom(100) for n in range(2500)}


@pytest.fixture
def table(tmp_path: Path) -> ChunkTable:
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=2)).chunk_tables["payments"]
    write_rows(table, PARTITION, ROWS)
    return table


@pytest.fixture
def app() -> Any:
    """Return a stand-in for an app that is folding nothing."""
    consumer = SimpleNamespace(at_work=set())
    return SimpleNamespace(
        should_stop=False, rebalancing=False, consumer_generation_id=1, consumer=consumer
    )


@pytest.fixture
def scrubber(app: Any, table: ChunkTable, tmp_path: Path) -> Scrubber:
    return Scrubber(app, [table], tmp_path)


def reopened(table: ChunkTable) -> None:
    """Open the partition again with empty caches, as after a restart."""
    table._held.clear()
    table.data._dbs.clear()
    gc.collect()
    table.open(PARTITION)


def flip_a_bit_of_a_file(table: ChunkTable) -> None:
    """Flip a bit in the middle of the file that contains all rows."""
    table._db(PARTITION).compact_range(None, None)
    (file,) = folder_of(table).glob("*.sst")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    reopened(table)


def folder_of(table: ChunkTable) -> Path:
    return Path(str(table.data.partition_path(PARTITION)))


async def damage_found_by(scrubber: Scrubber) -> DamagedTableError:
    try:
        await scrubber.round()
    except DamagedTableError as error:
        # The frames of the traceback would keep the database open.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    raise AssertionError("no damage was found")


async def test_an_intact_partition_is_read_in_full(scrubber):
    assert scrubber.reading("payments", PARTITION) is None
    await scrubber.round()
    assert scrubber.reading("payments", PARTITION) is not None
    assert scrubber.damages() == []


def change_a_row(table: ChunkTable) -> None:
    table._db(PARTITION).put(b"key 0007", b"another value")


def lose_a_row(table: ChunkTable) -> None:
    table._db(PARTITION).delete(b"key 0007")


def add_a_row(table: ChunkTable) -> None:
    table._db(PARTITION).put(b"key", b"value")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change_a_row, "it holds 2500 rows with digest "),
        (lose_a_row, "it holds 2499 rows with digest "),
        (add_a_row, "it holds 2501 rows with digest "),
        (flip_a_bit_of_a_file, "RocksDB can't read it: Corruption: block checksum mismatch"),
    ],
)
async def test_damage_is_reported_and_recorded_and_repaired(table, scrubber, damage, said):
    damage(table)
    found = await damage_found_by(scrubber)
    assert scrubber.reading("payments", PARTITION) is None
    told = explain(found, Path("data"))
    assert told.startswith("DamagedTableError: partition 1 of the table payments is damaged: ")
    assert said in told
    assert told.endswith("the next start restores it from the changelog; check the disk")
    scrubber.discard(found)
    assert not folder_of(table).exists()
    (noted,) = scrubber.damages()
    assert (noted.table, noted.partition) == ("payments", PARTITION)
    assert said in noted.detail
    reopened(table)
    assert table.end(PARTITION) == 0
    write_rows(table, PARTITION, ROWS)
    await scrubber.round()
    assert scrubber.damages() == [noted]


@pytest.mark.parametrize(
    "read",
    [
        lambda table: table.read_chunk(PARTITION, ROWS),
        lambda table: [table.read(PARTITION, key) for key in ROWS],
        lambda table: table.scan(PARTITION, b"", len(ROWS)),
        lambda table: list(table.rows_now(PARTITION)),
        lambda table: list(table.keys_between(PARTITION, b"", b"z")),
        lambda table: list(table.keys_between(PARTITION, b"", b"z", backwards=True)),
    ],
    ids=["fold", "view", "list", "sums", "range", "range from its end"],
)
def test_a_flipped_bit_is_never_read_as_a_value(table, read):
    flip_a_bit_of_a_file(table)
    with pytest.raises(DamagedTableError, match="block checksum mismatch"):
        read(table)


def test_a_database_that_cannot_be_opened_counts_as_damaged(table):
    table._held.clear()
    table.data._dbs.clear()
    gc.collect()
    (manifest,) = folder_of(table).glob("MANIFEST-*")
    content = bytearray(manifest.read_bytes())
    content[len(content) // 2] ^= 1
    manifest.write_bytes(content)
    with pytest.raises(DamagedTableError, match="checksum mismatch"):
        table.open(PARTITION)
    table.drop(PARTITION)
    table.open(PARTITION)
    assert table.end(PARTITION) == 0


@pytest.mark.parametrize("damage", [change_a_row, lose_a_row, flip_a_bit_of_a_file])
def test_a_worker_that_crashes_finds_the_damage_that_may_be_the_cause_of_the_crash(
    table, scrubber, damage
):
    assert list(scrubber.search()) == []
    damage(table)
    (found,) = scrubber.search()
    assert (found.table, found.partition) == (table, PARTITION)


async def test_a_rebalance_in_the_middle_of_a_round_ends_the_round_without_a_result(
    table, app, scrubber, monkeypatch
):
    """After the rebalance, another worker may write rows, which this worker's iterator lacks."""
    monkeypatch.setattr(processors.engine.scrub, "_PAUSE_S", 0)
    change_a_row(table)
    pauses = 0

    async def rebalance_at_the_second_pause(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        app.consumer_generation_id += pauses == 2

    monkeypatch.setattr(processors.engine.scrub.asyncio, "sleep", rebalance_at_the_second_pause)
    await scrubber.round()
    assert pauses == 2
    assert scrubber.reading("payments", PARTITION) is None
    assert scrubber.damages() == []


async def test_nothing_is_read_during_a_rebalance(table, app, scrubber):
    change_a_row(table)
    app.rebalancing = True
    await scrubber.round()
    assert scrubber.reading("payments", PARTITION) is None


async def test_rows_that_are_written_while_a_partition_is_read_do_not_count_as_damage(
    table, scrubber, monkeypatch
):
    async def write(_seconds: float) -> None:
        write_rows(table, PARTITION, {b"key 0000": os.urandom(8), b"new": os.urandom(8)})

    monkeypatch.setattr(processors.engine.scrub.asyncio, "sleep", write)
    await scrubber.round()
    assert scrubber.reading("payments", PARTITION) is not None


async def test_a_round_begins_on_request(app, scrubber):
    keeping = asyncio.create_task(scrubber.keep())
    scrubber.want()
    await until(lambda: scrubber.reading("payments", PARTITION) is not None)
    app.should_stop = True
    scrubber.want()
    await keeping


def test_only_the_latest_reports_of_damage_are_kept(table, scrubber, tmp_path):
    for n in range(30):
        scrubber.discard(DamagedTableError(table, PARTITION, f"damage {n}"))
        folder_of(table).mkdir()
    assert [each.detail for each in scrubber.damages()] == [f"damage {n}" for n in range(10, 30)]
    assert not list(tmp_path.glob("*.new"))


async def test_a_running_worker_does_not_compare_its_rows_with_the_digest_on_disk(table, scrubber):
    """A worker reads the stored digest when it starts, and then keeps the digest in memory."""
    table._db(PARTITION).put(DIGEST_KEY, b"2500 1 2500")
    await scrubber.round()
    reopened(table)
    with pytest.raises(DamagedTableError):
        await scrubber.round()
