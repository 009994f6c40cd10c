"""The peer: a plain Faust app, an event at a time, as Faust's documentation writes one.

The same topology as ours: dedupe by event id, fold by payment, fold by order; the same topics,
facts per payment, journal entries, totals per order; tables in RocksDB with changelogs; acks of all
in-sync replicas. Where there is a choice it is the cheaper one: dicts instead of records, no digest
of the content, no anomalies, no reversals (the input needs none), debug logs off, and no wait for a
send's acknowledgement, as `await topic.send(…)` does not wait for it.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import faust
from faust.web import Request, Response, View

from bench.program import OrderTotals, Program, totals_by_currency

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

seen = app.Table("seen", key_type=str)
payments = app.Table("payments", key_type=str)
orders = app.Table("orders", key_type=str)

# Both build a debug record per fetch or send that `-l warn` then drops: some 10 % of the time.
for library in ("aiokafka", "faust"):
    logging.getLogger(library).setLevel(logging.WARNING)


@app.agent(webhooks)
async def dedupe(stream: Any) -> None:
    """Pass each event on once, to ``ledger.events`` by payment."""
    async for event_id, body in stream.items():
        if event_id in seen:
            continue
        event = read_event(body)
        if event is not None:
            await events.send(key=event["payment_id"], value=event)
        seen[event_id] = body["created"]


@app.agent(events)
async def fold_payments(stream: Any) -> None:
    """Fold the facts of each payment; what follows goes to ``ledger.payments`` by order."""
    async for payment_id, event in stream.items():
        payment = payments.get(payment_id) or {"facts": {}, "posted": []}
        if event["event_id"] in payment["facts"]:
            continue
        before = order_of(payment_id, payment) if payment["facts"] else None
        payment["facts"][event["event_id"]] = event
        entry = journal_entry(payment_id, payment, event)
        if entry is not None:
            payment["posted"].append(entry["entry_id"])
            await entries.send(key=entry["entry_id"], value=entry)
        after = order_of(payment_id, payment)
        snapshot = describe_payment(payment_id, payment)
        if before not in (None, after):
            moved = {"payment_id": payment_id, "version": snapshot["version"], "events": []}
            await snapshots.send(key=before, value=moved)
        await snapshots.send(key=after, value=snapshot)
        payments[payment_id] = payment


@app.agent(snapshots)
async def fold_orders(stream: Any) -> None:
    """Fold the payments of each order; what follows goes to ``ledger.orders``."""
    async for order_id, snapshot in stream.items():
        order = orders.get(order_id) or {"payments": {}}
        held = order["payments"].get(snapshot["payment_id"])
        if held is not None and held["version"] >= snapshot["version"]:
            continue
        order["payments"][snapshot["payment_id"]] = snapshot
        await documents.send(key=order_id, value=describe_order(order_id, order))
        orders[order_id] = order


@app.page("/readyz")
class Readiness(View):
    """The tables are recovered, and the worker has its partitions."""

    async def get(self, request: Request) -> Response:  # noqa: ARG002 - Faust gives it
        """Answer 200 once events are folded."""
        ready = app.tables.actives_ready and not app.rebalancing and not app.in_recovery
        return self.json({"ready": ready}, status=200 if ready else 503)


def read_event(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is folded of a delivery; ``None`` for a type that is not."""
    if body["type"] not in ("payment.succeeded", "payment.failed", "refund.succeeded"):
        return None
    data = body["data"]
    return {
        "event_id": body["id"],
        "type": body["type"],
        "created": body["created"],
        "data_id": data["id"],
        "payment_id": data.get("payment_id") or data["id"],
        "amount": data["amount"],
        "currency": data["currency"],
        "order": data.get("merchantReference")
        or data.get("orderReference")
        or data.get("metadata", {}).get("order_id"),
    }


def order_of(payment_id: str, payment: dict[str, Any]) -> str:
    """Return the reference on the earliest fact that has one, else the payment's own id."""
    carriers = [fact for fact in payment["facts"].values() if fact["order"]]
    return min(carriers, key=by_time)["order"] if carriers else payment_id


def journal_entry(
    payment_id: str, payment: dict[str, Any], event: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the balanced entry that an event posts; ``None`` if it posts none, or did already."""
    if event["type"] == "payment.failed":
        return None
    if event["type"] == "payment.succeeded":
        entry_id, debit, credit = f"payment/{payment_id}/1", "assets:plexy", "income:sales"
    else:
        entry_id = f"refund/{payment_id}/{event['data_id']}/1"
        debit, credit = "income:refunds", "assets:plexy"
    if entry_id in payment["posted"]:
        return None
    amount, currency = event["amount"], event["currency"]
    return {
        "entry_id": entry_id,
        "payment_id": payment_id,
        "event_id": event["event_id"],
        "created": event["created"],
        "postings": [
            {"account": debit, "amount": amount, "currency": currency},
            {"account": credit, "amount": -amount, "currency": currency},
        ],
    }


def describe_payment(payment_id: str, payment: dict[str, Any]) -> dict[str, Any]:
    """Return what follows from a payment's facts."""
    facts = sorted(payment["facts"].values(), key=by_time)
    success = next((fact for fact in facts if fact["type"] == "payment.succeeded"), None)
    failed = any(fact["type"] == "payment.failed" for fact in facts)
    refunds: dict[str, dict[str, Any]] = {}
    for fact in facts:
        if fact["type"] == "refund.succeeded":
            refunds.setdefault(fact["data_id"], fact)
    return {
        "payment_id": payment_id,
        "version": len(facts),
        "status": "succeeded" if success else "failed" if failed else "unknown",
        "amount": success["amount"] if success else None,
        "currency": success["currency"] if success else None,
        "refunds": [
            {"refund_id": key, "amount": fact["amount"], "currency": fact["currency"]}
            for key, fact in refunds.items()
        ],
        "events": [[fact["event_id"], fact["type"], fact["created"]] for fact in facts],
    }


def describe_order(order_id: str, order: dict[str, Any]) -> dict[str, Any] | None:
    """Return what follows from an order's payments; ``None`` if all of them have moved away."""
    held = [payment for payment in order["payments"].values() if payment["events"]]
    if not held:
        return None
    totals: dict[str, dict[str, int]] = {}
    for payment in held:
        if payment["amount"] is not None:
            add(totals, payment["currency"], "paid", payment["amount"])
        for refund in payment["refunds"]:
            add(totals, refund["currency"], "refunded", refund["amount"])
    times = [created for payment in held for _, _, created in payment["events"]]
    return {
        "order_id": order_id,
        "status": order_status(held, totals),
        "version": len(times),
        "totals": totals,
        "payments": held,
        "first_event": min(times),
        "last_event": max(times),
    }


def order_status(held: list[dict[str, Any]], totals: dict[str, dict[str, int]]) -> str:
    """Return an order's status, the first that holds."""
    succeeded = any(payment["status"] == "succeeded" for payment in held)
    if any(sums["refunded"] > sums["paid"] for sums in totals.values()):
        return "over_refunded"
    if any(sums["refunded"] for sums in totals.values()):
        whole = all(sums["refunded"] == sums["paid"] for sums in totals.values())
        return "refunded" if succeeded and whole else "partially_refunded"
    return "paid" if succeeded else "failed"


def add(totals: dict[str, dict[str, int]], currency: str, name: str, amount: int) -> None:
    """Add an amount to one of a currency's sums."""
    sums = totals.setdefault(currency, {"paid": 0, "refunded": 0})
    sums[name] += amount


def by_time(fact: dict[str, Any]) -> tuple[int, str]:
    """Sort facts by when they occurred; the id decides between equal times."""
    return (fact["created"], fact["event_id"])


class FaustPlain(Program):
    """This module as a peer: `faust -A bench.peers.faust_plain worker`."""

    name = "faust_plain"
    title = "plain Faust app"

    def command(self) -> list[str]:
        """Return the command line of its worker."""
        return [sys.executable, "-m", "faust", "-A", __name__, "worker", "-l", "warn"]

    def environment(self) -> Mapping[str, str]:
        """Return where it runs."""
        return {
            "BENCH_BOOTSTRAP": self.place.bootstrap,
            "BENCH_PREFIX": self.place.prefix,
            "BENCH_APP_ID": self.place.group_id,
            "BENCH_PARTITIONS": str(self.place.partitions),
            "BENCH_FOLDER": str(self.place.folder / "data"),
            "BENCH_WEB_PORT": str(self.place.web_port),
        }

    def order_totals(self, document: bytes) -> OrderTotals | None:
        """Read one of its order documents; ``null`` where ours has a tombstone."""
        order = json.loads(document)
        return order and OrderTotals(order["status"], totals_by_currency(order["totals"]))
