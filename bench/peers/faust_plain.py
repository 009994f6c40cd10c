"""Implements a peer as a plain Faust app that takes one event at a time, as Faust's docs show.

The app has the ledger's topology (dedupe by event id and content, fold by payment, fold by order),
topics and state. Its tables are in RocksDB and have changelogs, and its sends need the acks of all
in-sync replicas. Wherever there is a choice, the app takes the cheaper option. It uses the rules of
``plain_rules``, and writes no debug logs. It never waits for the acknowledgement of a send, because
`await topic.send(…)` does not wait for it.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import faust
from faust.web import Request, Response, View

from bench.peers.plain_rules import (
    content_digest,
    describe_order,
    fold_order,
    fold_payment,
    read_event,
)
from bench.program import OrderTotals, Peer, totals_by_currency

PREFIX = os.environ.get("BENCH_PREFIX", "")

app = faust.App(
    os.environ.get("BENCH_APP_ID", "faust-plain"),
    broker=f"kafka://{os.environ.get('BENCH_BOOTSTRAP', '127.0.0.1:9092')}",
    store="rocksdb://",
    datadir=os.environ.get("BENCH_FOLDER"),
    topic_partitions=int(os.environ.get("BENCH_PARTITIONS", "4")),
    topic_replication_factor=1,
    producer_acks=-1,
    consumer_auto_offset_reset="earliest",
    web_bind="127.0.0.1",
    web_port=int(os.environ.get("BENCH_WEB_PORT", "6066")),
    key_serializer="raw",
    value_serializer="json",
)

webhooks = app.topic(f"{PREFIX}plexy.webhooks", key_type=str)
events = app.topic(f"{PREFIX}ledger.events", key_type=str)
snapshots = app.topic(f"{PREFIX}ledger.payments", key_type=str)
entries = app.topic(f"{PREFIX}ledger.entries", key_type=str)
documents = app.topic(f"{PREFIX}ledger.orders", key_type=str)
rejected = app.topic(f"{PREFIX}plexy.rejected", key_type=str)

seen = app.Table("seen", key_type=str)
payments = app.Table("payments", key_type=str)
orders = app.Table("orders", key_type=str)

# At their default level, the libraries would build debug log records, which takes 10 % of the time.
# Then `-l warn` would drop these records.
for library in ("aiokafka", "faust"):
    logging.getLogger(library).setLevel(logging.WARNING)


@app.agent(webhooks)
async def dedupe(stream: Any) -> None:
    """Send each event once, keyed by payment; reject a known event id with different content."""
    async for event_id, body in stream.items():
        digest = content_digest(body)
        first = seen.get(event_id)
        if first is not None:
            if first["digest"] != digest:
                await rejected.send(key=event_id, value=body)
            continue
        event = read_event(body)
        if event is not None:
            await events.send(key=event["payment_id"], value=event)
        seen[event_id] = {"digest": digest, "created": body["created"]}


@app.agent(events)
async def fold_payments(stream: Any) -> None:
    """Fold the facts of each payment; send snapshots to ``ledger.payments``, keyed by order."""
    async for payment_id, event in stream.items():
        payment = payments.get(payment_id) or {"facts": {}, "posted": []}
        entry, changed = fold_payment(payment_id, payment, event)
        if entry is not None:
            await entries.send(key=entry["entry_id"], value=entry)
        for snapshot in changed:
            await snapshots.send(key=snapshot["order_id"], value=snapshot)
        if changed:
            payments[payment_id] = payment


@app.agent(snapshots)
async def fold_orders(stream: Any) -> None:
    """Fold the payments of each order; send the documents to ``ledger.orders``."""
    async for order_id, snapshot in stream.items():
        order = orders.get(order_id) or {"payments": {}}
        if fold_order(order, snapshot):
            await documents.send(key=order_id, value=describe_order(order_id, order))
            orders[order_id] = order


@app.page("/readyz")
class ReadyPage(View):
    """A page that answers 200 once the worker has its partitions and has recovered its tables."""

    async def get(self, request: Request) -> Response:  # noqa: ARG002 - Faust passes it
        """Answer 200 once the app folds events, and 503 before that."""
        ready = app.tables.actives_ready and not app.rebalancing and not app.in_recovery
        return self.json({"ready": ready}, status=200 if ready else 503)


class FaustPlain(Peer):
    """This module as a peer: `faust -A bench.peers.faust_plain worker`."""

    name = peer = "faust_plain"
    title = "plain Faust app"
    # For the same events, this peer takes more than ten times as long as every other peer.
    share = 0.15
    rounds = 1

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        return [sys.executable, "-m", "faust", "-A", __name__, "worker", "-l", "warn"]

    def environment(self) -> Mapping[str, str]:
        """Return variables with the worker's broker, topics, group, data folder and web port."""
        return {
            "BENCH_BOOTSTRAP": self.place.bootstrap,
            "BENCH_PREFIX": self.place.prefix,
            "BENCH_APP_ID": self.place.group_id,
            "BENCH_PARTITIONS": str(self.place.partitions),
            "BENCH_FOLDER": str(self.place.folder / "data"),
            "BENCH_WEB_PORT": str(self.place.web_port),
        }

    def order_totals(self, document: bytes) -> OrderTotals | None:
        """Read the peer's order document; ``null`` means a removed order, like our tombstone."""
        order = json.loads(document)
        return order and OrderTotals(order["status"], totals_by_currency(order["totals"]))
