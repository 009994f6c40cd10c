"""An example of a consumer: it keeps the ledger's orders and entries in its own SQLite file.

    python examples/consumer.py --bootstrap 127.0.0.1:19092 --database orders.sqlite

Input: `ledger.orders` and `ledger.entries`, whose records are delivered at least once. Output: in
the file, the latest document of each order under the order's key, and each entry once under its id.
At the end, the program prints the balance of each account. Invariant: offsets are committed only
after their records are in the file. If the program is killed between these two steps, it reads the
same records again at its next start, and the file stays the same.

Run only one program for each group and for each file. Two programs in one group replace each other
again and again, until both end with an error. For a second file, use a second `--group`.

The program needs only aiokafka, and follows the ledger until Ctrl-C.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

TABLES = """
CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (entry_id TEXT PRIMARY KEY, entry TEXT NOT NULL);
"""
Apply = Callable[[sqlite3.Connection, str, str | None], None]
REMEDY = (
    "check that Kafka is at --bootstrap, that --database is a file of this program, and that no "
    "other program is in --group"
)


def apply_order(database: sqlite3.Connection, order_id: str, document: str | None) -> None:
    """Store the latest document of an order; delete the order on a tombstone (no value)."""
    if document is None:
        database.execute("DELETE FROM orders WHERE order_id = ?", (order_id,))
    else:
        database.execute("INSERT OR REPLACE INTO orders VALUES (?, ?)", (order_id, document))


def apply_entry(database: sqlite3.Connection, entry_id: str, entry: str | None) -> None:
    """Store an entry when it is read for the first time; an entry never changes."""
    if entry is None:
        raise ValueError("an entry is never deleted")
    database.execute("INSERT OR IGNORE INTO entries VALUES (?, ?)", (entry_id, entry))


def texts_of(record: ConsumerRecord) -> tuple[str, str | None]:
    """Return the key and the value; raise ``ValueError`` if the ledger can't have written them."""
    key, value = record.key, record.value
    if key is None or (value is not None and not isinstance(json.loads(value), dict)):
        raise ValueError("expected a key and a JSON object")
    return key.decode(), None if value is None else value.decode()


def apply_record(apply: Apply, database: sqlite3.Connection, record: ConsumerRecord) -> None:
    """Apply a record; report and skip a record that the ledger did not write."""
    try:
        apply(database, *texts_of(record))
    except (ValueError, RecursionError) as error:
        place = f"{record.topic}[{record.partition}] at offset {record.offset}"
        print(f"skipped {place}, which the ledger did not write: {error}", file=sys.stderr)


async def follow(
    options: argparse.Namespace, database: sqlite3.Connection, stopping: asyncio.Event
) -> None:
    """Read records and apply them in batches; stop between two batches."""
    apply = {options.orders: apply_order, options.entries: apply_entry}
    consumer = AIOKafkaConsumer(
        *apply,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        # A fixed name lets the group's only member continue at once after a restart.
        group_instance_id=options.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        await consumer.start()
        while not stopping.is_set():
            fetched = await consumer.getmany(timeout_ms=1000, max_records=options.batch)
            # One transaction puts all these records into the file, or none of them.
            with database:
                for record in chain.from_iterable(fetched.values()):
                    apply_record(apply[record.topic], database, record)
            if fetched:
                await consumer.commit()
    finally:
        await consumer.stop()


def balances(database: sqlite3.Connection) -> Counter[tuple[str, str]]:
    """Sum the entries by account and currency, in minor units; a sum may exceed 64 bits."""
    sums: Counter[tuple[str, str]] = Counter()
    for (entry,) in database.execute("SELECT entry FROM entries"):
        for posting in json.loads(entry).get("postings", []):
            sums[posting["account"], posting["currency"]] += posting["amount"]
    return sums


async def main(options: argparse.Namespace) -> None:
    """Follow the ledger until SIGINT or SIGTERM, then print the balances."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with contextlib.closing(sqlite3.connect(options.database)) as database:
        database.executescript(TABLES)
        await follow(options, database, stopping)
        for (account, currency), amount_minor in sorted(balances(database).items()):
            print(account, currency, amount_minor)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Keep the ledger's orders and entries in a SQLite file, until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--bootstrap", default="127.0.0.1:19092", help="brokers, host:port")
    parser.add_argument("--group", default="orders-example", help="group for this program only")
    parser.add_argument("--database", type=Path, default="orders.sqlite", help="the SQLite file")
    parser.add_argument("--orders", default="ledger.orders", help="topic of the documents")
    parser.add_argument("--entries", default="ledger.entries", help="topic of the entries")
    parser.add_argument("--batch", type=int, default=500, help="maximum records in a transaction")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        asyncio.run(main(arguments()))
    except (KafkaError, sqlite3.Error) as error:
        sys.exit(f"consumer.py: {error!r}; {REMEDY}")
