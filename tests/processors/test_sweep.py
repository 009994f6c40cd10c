"""The search for forgotten ids is bounded, finds all of them, and runs only if some may exist."""

import random
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from ledger.deduplication import DAY_MS, PROGRESS_KEY, START, Progress, Seen, forgettable
from ledger.wire import SEEN
from processors.dedupe import sweep
from processors.engine.tables import ChunkTable
from processors.settings import WorkerSettings
from processors.worker import create_app
from tests.rows import write_rows

FORGET_AFTER_MS = 90 * DAY_MS
PARTITION = 0
SMALL_CHUNK = 5
# A search reads two keys for each record of the chunk, but at least 200 keys.
SEARCHED = 200


@pytest.fixture
def table(tmp_path: Path) -> ChunkTable:
    return create_app(WorkerSettings(data_dir=tmp_path, partitions=1)).chunk_tables["seen"]


def remembered(table: ChunkTable, after: bytes, limit: int) -> dict[bytes, Seen]:
    values = table.scan(PARTITION, after, limit)
    return {key: SEEN.decode(value) for key, value in values.items()}


def held(table: ChunkTable) -> dict[bytes, Seen]:
    return remembered(table, PROGRESS_KEY, 10**9)


def fold(table: ChunkTable, progress: Progress, ids: list[bytes], day: float) -> Progress:
    """Write new ids and delete forgotten ids, as the agent does; return the progress."""
    now_ms = max(progress.timestamp_ms, int(day * DAY_MS))
    forgotten, progress = sweep(partial(remembered, table), len(ids), progress, FORGET_AFTER_MS)
    after = replace(progress, offset=progress.offset + len(ids), timestamp_ms=now_ms)
    seen = {key: SEEN.encode(Seen(b"", after.offset, now_ms)) for key in ids}
    write_rows(table, PARTITION, {**dict.fromkeys(forgotten), **seen})
    return after


@pytest.mark.parametrize("seed", range(20))
def test_while_no_search_is_due_the_table_has_no_forgotten_id(table, seed):
    chance, progress, day = random.Random(seed), START, 20_000.0  # noqa: S311
    idle = 0
    for number in range(60):
        count = chance.choice([1, SMALL_CHUNK, 300])
        # The new keys may sort anywhere, even before the position of a running search.
        ids = [b"%016x-%d" % (chance.getrandbits(64), number) for _ in range(count)]
        progress = fold(table, progress, ids, day)
        if not progress.searches(FORGET_AFTER_MS):
            idle += 1
            assert forgettable(held(table), progress, FORGET_AFTER_MS) == []
        day += chance.choice([0, 0, 1, 10, 40, 100])
    assert idle


def test_a_table_whose_oldest_id_is_still_remembered_is_not_searched(table, monkeypatch):
    progress = fold(table, START, [b"first"], 20_000)
    progress = fold(table, progress, [b"second"], 20_001)
    assert not progress.searches(FORGET_AFTER_MS)
    monkeypatch.setattr(table, "scan", None)
    progress = fold(table, progress, [b"third"], 20_080)
    monkeypatch.undo()
    progress = fold(table, fold(table, progress, [b"fourth"], 20_091), [b"fifth"], 20_091)
    assert set(held(table)) == {b"second", b"third", b"fourth", b"fifth"}


def test_a_search_continues_where_it_stopped_until_the_end_of_the_table(table):
    ids = [b"%04d" % number for number in range(3 * SEARCHED)]
    progress = fold(table, fold(table, START, ids, 20_000), [b"new"], 20_200)
    left = []
    while progress.searches(FORGET_AFTER_MS):
        progress = fold(table, progress, [], 20_200)
        left.append(len(held(table)) - 1)
    # The first search passed the first ids while these ids were still remembered. The next search
    # finds them.
    assert left == [2 * SEARCHED, SEARCHED, SEARCHED, 0, 0]
