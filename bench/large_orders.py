"""`python -m bench.large_orders`: the cost of a chunk in the hop `orders`, by size of its order.

Input: a number of payments. Output: for orders of up to that size, the CPU milliseconds, and the
rows and bytes written, for a chunk with one more payment. The cost includes everything that the hop
does between two calls to Kafka (read, fold, describe, encode, write), on RocksDB.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Final, NamedTuple

from bench.table import write_rows
from ledger.events import PAYMENT_SUCCEEDED, Event
from ledger.money import Money
from ledger.order_chunks import FoldedOrders
from ledger.payments import Snapshot, fold_payments
from ledger.wire import ORDER_DOCUMENTS, ORDERS
from processors.engine.databases import PartitionRows
from processors.settings import WorkerSettings
from processors.worker import create_app

_ORDER: Final = "order-2026-000123"
_PARTITION: Final = 0
_CHUNK: Final = 1000
_TRIES: Final = 20


class Cost(NamedTuple):
    """The cost of one chunk."""

    cpu_ms: float
    rows: int
    row_bytes: int
    document_bytes: int


class Hop:
    """The hop ``orders`` without Kafka."""

    def __init__(self, folder: Path) -> None:
        settings = WorkerSettings(data_dir=folder, partitions=1)
        self._table = create_app(settings).chunk_tables["orders"]
        self._offset = 0

    def fold(self, numbers: Iterable[int]) -> Cost:
        """Fold the payments with these numbers into the one order."""
        snapshots = [_snapshot(number) for number in numbers]
        records = [
            SimpleNamespace(offset=offset) for offset, _ in enumerate(snapshots, self._offset)
        ]
        self._offset += len(records)
        began_s = time.process_time()
        self._table.open(_PARTITION)
        stored = self._table.read_chunk(_PARTITION, [_ORDER.encode()])
        known = {key.decode(): ORDERS.decode(row) for key, row in stored.items()}
        folded = FoldedOrders(snapshots, records, known, PartitionRows(self._table, _PARTITION))
        document = folded.document(_ORDER)
        published = len(ORDER_DOCUMENTS.encode(document)) if document else 0
        rows = list(folded.rows())
        write_rows(self._table, _PARTITION, dict(rows))
        cpu_ms = (time.process_time() - began_s) * 1000
        row_bytes = sum(len(key) + len(row or b"") for key, row in rows)
        return Cost(cpu_ms, len(rows), row_bytes, published)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_orders", description=__doc__)
    parser.add_argument("--payments", type=int, default=100_000, help="in the largest order")
    most = parser.parse_args().payments
    with tempfile.TemporaryDirectory(prefix="plexy-orders-") as folder:
        hop, there = Hop(Path(folder)), 0
        for size in (1, 100, 500, 1_000, 10_000, 100_000, 1_000_000):
            if size > most:
                break
            for first in range(there, size, _CHUNK):
                hop.fold(range(first, min(first + _CHUNK, size)))
            costs = [hop.fold([size + n]) for n in range(_TRIES)]
            there = size + _TRIES
            print(
                f"{size:>9,} payments {median(each.cpu_ms for each in costs):8.2f} ms, "
                f"{costs[-1].rows} rows of {costs[-1].row_bytes:>7,} bytes, "
                f"a document of {costs[-1].document_bytes:>7,} bytes"
            )


def _snapshot(number: int) -> Snapshot:
    event = Event(
        event_id=f"evt_1NX4c2eZvKYlo2C{number:07}",
        type=PAYMENT_SUCCEEDED,
        created=1_767_225_600 + number,
        data_id=f"pay_1NX4c2eZvKYlo2C{number:07}",
        money=Money(150_000, "KZT"),
        status="succeeded",
        order_reference=_ORDER,
        payment_reference=None,
        partition=_PARTITION,
        offset=number,
    )
    (snapshot,) = fold_payments([event], {}).snapshots
    return snapshot


if __name__ == "__main__":
    main()
