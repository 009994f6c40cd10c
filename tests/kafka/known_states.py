"""Provides thousands of events, and checks the state that workers have folded from them."""

import json
from collections.abc import Iterator
from typing import Any

from ledger.wire import ENTRIES
from tests.kafka.harness import names_of, read_topic

EVENTS = 20_000


def history(count: int) -> Iterator[dict[str, Any]]:
    """Return two events per order: a payment, and a refund that names the payment but no order."""
    for n in range(count // 2):
        yield event(f"evt_p{n}", "payment.succeeded", f"pay_{n}", 1000 + n, order=f"ord {n}/ü")
        refund = event(f"evt_r{n}", "refund.succeeded", f"re_{n}", n % 2, payment=f"pay_{n}")
        yield refund


def event(
    event_id: str, kind: str, data_id: str, amount: object, *, order: str = "", payment: str = ""
) -> dict[str, Any]:
    data = {"id": data_id, "amount": amount, "currency": "KZT", "status": "succeeded"}
    data |= {"merchantReference": order} if order else {}
    data |= {"payment_id": payment} if payment else {}
    return {"id": event_id, "type": kind, "created": 1_700_000_000, "data": data}


def assert_states_are_right(env: dict[str, str], count: int) -> None:
    """Check the last document of each order and the journal's sums against values computed here."""
    documents = {}
    for record in read_topic(env, names_of(env).orders):
        documents[record.key.decode()] = json.loads(record.value) if record.value else None
    # A refund that arrives before its payment has its own order document until the payment arrives.
    documents = {order_id: document for order_id, document in documents.items() if document}
    assert len(documents) == count // 2
    for n in range(count // 2):
        document = documents[f"ord {n}/ü"]
        refunded = n % 2
        expected = {"paid": 1000 + n, "refunded": refunded, "net": 1000 + n - refunded}
        assert document["totals"] == {"KZT": expected}, document
        assert document["version"] == 2, document
        assert document["anomalies"] == [], document
    entries = {record.key: record.value for record in read_topic(env, names_of(env).entries)}
    sums: dict[str, int] = {}
    for value in entries.values():
        for posting in ENTRIES.decode(value).postings:
            sums[posting.account] = sums.get(posting.account, 0) + posting.amount
    paid = sum(1000 + n for n in range(count // 2))
    refunds = sum(n % 2 for n in range(count // 2))
    expected_sums = {
        "assets:plexy": paid - refunds,
        "income:sales": -paid,
        "income:refunds": refunds,
    }
    assert len(entries) == count
    assert sums == expected_sums
