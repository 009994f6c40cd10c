"""`python -m bench.sweep`: the cost of forgetting event ids in `dedupe`.

Input: a number of records. Output: the CPU microseconds per record, with and without forgetting,
measured in turns. The cost includes everything that `dedupe` does between two calls to Kafka (read,
judge, search the table, encode, write), on RocksDB. The table holds the records of 90 days, and
forgets as many ids as arrive.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from bench.recording import RecordedDelivery, record
from bench.table import write_rows
from ledger.deduplication import DAY_MS, FORGET_AFTER_DAYS, PROGRESS_KEY, START, Progress, Seen
from ledger.deduplication import deduplicate as judge
from ledger.wire import EVENTS, PROGRESS, SEEN
from processors.dedupe import sweep
from processors.engine.tables import ChunkTable
from processors.settings import WorkerSettings
from processors.worker import create_app

_CHUNK: Final = 4000
_PARTITION: Final = 0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sweep", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000, help="records in 90 days")
    deliveries = record(parser.parse_args().records, seed=1)
    with tempfile.TemporaryDirectory(prefix="plexy-sweep-") as folder:
        sides = {name: _Side(Path(folder) / name) for name in ("without", "with")}
        # The first 90 days fill the tables. In the next 90, which count, as many ids go as come.
        for period in (0, 1):
            for first in range(0, len(deliveries), _CHUNK):
                chunk = _chunk(deliveries, first, period)
                for name, side in sides.items():
                    side.fold(chunk, swept=name == "with", measured=period == 1)
        for name, side in sides.items():
            us = side.cpu_s / len(deliveries) * 1e6
            print(f"{name:>8} {us:6.1f} µs a record, {side.keys():>9,} ids in the table")


def _chunk(deliveries: list[RecordedDelivery], first: int, period: int) -> Any:
    """Return a chunk of a period: the same deliveries in each period, with new ids."""
    records = []
    for offset, each in enumerate(deliveries[first : first + _CHUNK], first):
        new = b"%s_%d" % (each.key, period)
        share = period + offset / len(deliveries)
        records.append(
            SimpleNamespace(
                key=new,
                value=each.body.replace(b'"%s"' % each.key, b'"%s"' % new, 1),
                partition=_PARTITION,
                offset=period * len(deliveries) + offset,
                timestamp=int(share * FORGET_AFTER_DAYS * DAY_MS),
            )
        )
    return SimpleNamespace(partition=_PARTITION, records=records)


class _Side:
    """One table, and the CPU time of its chunks."""

    def __init__(self, folder: Path) -> None:
        settings = WorkerSettings(data_dir=folder, partitions=1)
        self._settings = settings
        self._table = create_app(settings).chunk_tables["seen"]
        self.cpu_s = 0.0

    def fold(self, chunk: Any, *, swept: bool, measured: bool) -> None:
        """Do the agent's work for a chunk, without Kafka."""
        began_s = time.process_time()
        keys = [PROGRESS_KEY, *(record.key for record in chunk.records)]
        stored = self._table.read_chunk(_PARTITION, keys)
        held = stored.pop(PROGRESS_KEY, None)
        progress: Progress = PROGRESS.decode(held) if held else START
        forgotten: list[bytes] = []
        if swept:
            scan = partial(_remembered, self._table)
            forgotten, progress = sweep(
                scan, len(chunk.records), progress, self._settings.forget_after_ms
            )
        known = {key: SEEN.decode(value) for key, value in stored.items()}
        result = judge(chunk.records, known, self._settings.field_names, progress)
        for event in result.events:
            EVENTS.encode(event)
        values: dict[bytes, bytes | None] = {
            **dict.fromkeys(forgotten),
            **{key: SEEN.encode(seen) for key, seen in result.seen.items()},
            PROGRESS_KEY: PROGRESS.encode(result.progress),
        }
        write_rows(self._table, _PARTITION, values)
        if measured:
            self.cpu_s += time.process_time() - began_s

    def keys(self) -> int:
        """Count the ids in the table."""
        return len(self._table.scan(_PARTITION, PROGRESS_KEY, 10**9))


def _remembered(table: ChunkTable, after: bytes, limit: int) -> dict[bytes, Seen]:
    rows = table.scan(_PARTITION, after, limit)
    return {key: SEEN.decode(value) for key, value in rows.items()}


if __name__ == "__main__":
    main()
