"""Implements the rules of the Python peers (the programs that the ledger is compared with).

Of the ledger's rules, the module has only the rules that the recorded input needs. It uses plain
dicts, as the peers' documentation does. Wherever there is a choice, the module takes the cheaper
option: dicts instead of classes, no anomalies, no reversals, and no checks of fields.
"""

import json
from hashlib import blake2b
from typing import Any

Body = dict[str, Any]


def content_digest(body: Body) -> str:
    """Return a digest of an event's content; the sequence of the keys does not change it."""
    content = json.dumps([body["type"], body["created"], body["data"]], sort_keys=True)
    return blake2b(content.encode(), digest_size=16).hexdigest()


def read_event(body: Body) -> Body | None:
    """Return the event of a delivery; ``None`` if the delivery's type is not folded."""
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


def fold_payment(payment_id: str, payment: Body, event: Body) -> tuple[Body | None, list[Body]]:
    """Add an event to a payment's facts; return the event's entry, if any, and the new snapshots.

    A known event posts no entry and produces no snapshot.
    """
    facts, posted = payment["facts"], payment["posted"]
    if event["event_id"] in facts:
        return None, []
    before = order_of(payment_id, payment) if facts else None
    facts[event["event_id"]] = event
    entry = journal_entry(payment_id, payment, event)
    if entry is not None:
        posted.append(entry["entry_id"])
    snapshot = describe_payment(payment_id, payment)
    if before in (None, snapshot["order_id"]):
        return entry, [snapshot]
    moved = {"order_id": before, "payment_id": payment_id, "version": len(facts), "events": []}
    return entry, [moved, snapshot]


def fold_order(order: Body, snapshot: Body) -> bool:
    """Put a payment's snapshot into its order; return whether the order changed."""
    held = order["payments"].get(snapshot["payment_id"])
    if held is not None and held["version"] >= snapshot["version"]:
        return False
    order["payments"][snapshot["payment_id"]] = snapshot
    return True


def order_of(payment_id: str, payment: Body) -> str:
    """Return the order of the earliest fact that names an order; otherwise the payment's id."""
    carriers = [fact for fact in payment["facts"].values() if fact["order"]]
    return min(carriers, key=by_time)["order"] if carriers else payment_id


def journal_entry(payment_id: str, payment: Body, event: Body) -> Body | None:
    """Return the balanced entry that an event posts; ``None`` for no entry or a known entry."""
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


def describe_payment(payment_id: str, payment: Body) -> Body:
    """Return a payment's snapshot."""
    facts = sorted(payment["facts"].values(), key=by_time)
    success = next((fact for fact in facts if fact["type"] == "payment.succeeded"), None)
    failed = any(fact["type"] == "payment.failed" for fact in facts)
    refunds: dict[str, Body] = {}
    for fact in facts:
        if fact["type"] == "refund.succeeded":
            refunds.setdefault(fact["data_id"], fact)
    return {
        "order_id": order_of(payment_id, payment),
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


def describe_order(order_id: str, order: Body) -> Body | None:
    """Return an order's document; ``None`` if all its payments have moved to other orders."""
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


def order_status(held: list[Body], totals: dict[str, dict[str, int]]) -> str:
    """Return an order's status: the first of these statuses that applies."""
    succeeded = any(payment["status"] == "succeeded" for payment in held)
    if any(sums["refunded"] > sums["paid"] for sums in totals.values()):
        return "over_refunded"
    if any(sums["refunded"] for sums in totals.values()):
        whole = all(sums["refunded"] == sums["paid"] for sums in totals.values())
        return "refunded" if succeeded and whole else "partially_refunded"
    return "paid" if succeeded else "failed"


def add(totals: dict[str, dict[str, int]], currency: str, name: str, amount: int) -> None:
    """Add an amount to one of the two sums of a currency: ``paid`` or ``refunded``."""
    sums = totals.setdefault(currency, {"paid": 0, "refunded": 0})
    sums[name] += amount


def by_time(fact: Body) -> tuple[int, str]:
    """Return a fact's sort key: its time, then its id."""
    return (fact["created"], fact["event_id"])
