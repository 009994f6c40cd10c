"""A chunk whose rows are too large to be read at once is folded in consecutive parts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from faust.types import TP

from processors.engine import effects
from processors.engine.chunk import Chunk, FetchedRecord
from processors.engine.effects import ChunkTooLargeError, Effects, folding
from processors.engine.tables import ChunkTable
from processors.settings import WorkerSettings
from processors.worker import create_app
from tests.rows import write_rows

RECORDS = 600
KEYS = [b"%d" % n for n in range(RECORDS)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChunkTable:
    """Return a table with rows of 1,000 bytes; at most 100,000 bytes may be read at once."""
    monkeypatch.setattr(effects, "_MOST_READ_BYTES", 100_000)
    app = create_app(WorkerSettings(data_dir=tmp_path, partitions=1))
    table: ChunkTable = app.chunk_tables["orders"]
    write_rows(table, 0, {b"%d" % n: bytes(1000) for n in range(RECORDS)})
    return table


def chunk_of(numbers: range) -> Chunk:
    consumer: Any = SimpleNamespace(app=SimpleNamespace(consumer_generation_id=1), given_back=0)
    records = [FetchedRecord(b"%d" % n, b"", 0, n, 0) for n in numbers]
    return Chunk(consumer, TP("ledger.payments", 0), records)


def effects_of(table: ChunkTable, numbers: range) -> Effects:
    producer: Any = SimpleNamespace(create_batch=None)
    return Effects(producer, chunk_of(numbers), table, 1)


class Writers:
    """Runs the work of a fold, and writes nothing."""

    async def write(self, _chunk: Chunk, work: Any) -> None:
        await work(SimpleNamespace(create_batch=None))


async def test_all_records_are_folded_once_in_sequence_and_each_part_is_limited_in_bytes(
    table, monkeypatch
):
    app: Any = SimpleNamespace(writers=Writers(), spans=None)
    monkeypatch.setattr(Effects, "write", AsyncMock())
    folded: list[int] = []
    parts: list[int] = []

    def fold(chunk: Chunk, effects: Effects) -> None:
        held = effects.read(chunk.keys)
        parts.append(sum(map(len, held.values())))
        folded.extend(record.offset for record in chunk.records)

    await folding(app, "orders", table, 1, fold)(chunk_of(range(RECORDS)))
    assert folded == list(range(RECORDS))
    assert len(parts) > 1
    assert max(parts) <= 100_000 + 64 * 1000


def test_rows_that_fit_are_read_at_once_and_a_single_row_always_fits(table, monkeypatch):
    assert len(effects_of(table, range(100)).read(KEYS[:100])) == 100
    with pytest.raises(ChunkTooLargeError, match="needs over"):
        effects_of(table, range(RECORDS)).read(KEYS)
    monkeypatch.setattr(effects, "_MOST_READ_BYTES", 0)
    assert len(effects_of(table, range(1)).read(KEYS[:1])) == 1


def test_the_halves_of_a_chunk_keep_its_generation():
    chunk = chunk_of(range(5))
    chunk.generation = 7
    first, second = chunk.halves()
    assert [each.generation for each in (first, second)] == [7, 7]
    assert [*first.records, *second.records] == chunk.records
    with pytest.raises(ValueError, match="can't be halved"):
        chunk_of(range(1)).halves()
