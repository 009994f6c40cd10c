"""Implements a peer as a Quix Streams app, written as Quix's documentation shows.

The app has its own virtual environment; see ``bench.peers.quix_streams``. It reads deliveries from
the log of record, and writes events, entries, snapshots and order documents to the ledger's topics.
Its three dataframes handle one event at a time. Its state is in RocksDB, and has changelogs. The
app commits offsets every 5 s, which is the default. It commits an offset after the outputs of the
offset's record, so it processes each record at least once. Its sends need the acks of all in-sync
replicas. The app's rules are ``plain_rules``.
"""

import os
from typing import Any

from quixstreams import Application, State

from bench.peers.plain_rules import (
    Body,
    content_digest,
    describe_order,
    fold_order,
    fold_payment,
    read_event,
)

STATE = "state"


def main() -> None:
    """Fold until a signal arrives."""
    app = Application(
        broker_address=os.environ["BENCH_BOOTSTRAP"],
        consumer_group=os.environ["BENCH_APP_ID"],
        state_dir=os.environ["BENCH_FOLDER"],
        auto_offset_reset="earliest",
        processing_guarantee="at-least-once",
        producer_extra_config={"acks": "all"},
        loglevel="WARNING",
    )

    def topic(name: str) -> Any:
        full = os.environ["BENCH_PREFIX"] + name
        return app.topic(full, key_serializer="str", key_deserializer="str")

    events, payments = topic("ledger.events"), topic("ledger.payments")

    judged = app.dataframe(topic("plexy.webhooks"))
    judged = judged.apply(dedupe, stateful=True, expand=True, metadata=True)
    judged.filter(is_event).to_topic(events, key=lambda event: event["payment_id"])
    judged.filter(lambda each: not is_event(each)).to_topic(topic("plexy.rejected"))

    followed = app.dataframe(events)
    followed = followed.apply(add_fact, stateful=True, expand=True, metadata=True)
    followed.filter(is_entry).to_topic(topic("ledger.entries"), key=lambda each: each["entry_id"])
    snapshots = followed.filter(lambda each: not is_entry(each))
    snapshots.to_topic(payments, key=lambda snapshot: snapshot["order_id"])

    documents = app.dataframe(payments)
    documents = documents.apply(add_snapshot, stateful=True, expand=True, metadata=True)
    documents.to_topic(topic("ledger.orders"))

    app.run()


def dedupe(body: Body, _key: str, _timestamp: int, _headers: Any, state: State) -> list[Body]:
    """Return a new event; for a known id with different content, return the body to reject."""
    digest = content_digest(body)
    first = state.get(STATE)
    if first is not None:
        return [] if first["digest"] == digest else [body]
    state.set(STATE, {"digest": digest, "created": body["created"]})
    event = read_event(body)
    return [] if event is None else [event]


def add_fact(
    event: Body, payment_id: str, _timestamp: int, _headers: Any, state: State
) -> list[Body]:
    """Fold a fact into its payment; return the new entry and snapshots."""
    payment = state.get(STATE) or {"facts": {}, "posted": []}
    entry, snapshots = fold_payment(payment_id, payment, event)
    if snapshots:
        state.set(STATE, payment)
    return snapshots if entry is None else [entry, *snapshots]


def add_snapshot(
    snapshot: Body, order_id: str, _timestamp: int, _headers: Any, state: State
) -> list[Body | None]:
    """Fold a payment's snapshot into its order; return the order's document."""
    order = state.get(STATE) or {"payments": {}}
    if not fold_order(order, snapshot):
        return []
    state.set(STATE, order)
    return [describe_order(order_id, order)]


def is_event(value: Body) -> bool:
    """Return whether a value is an event; otherwise it is a rejected body."""
    return "payment_id" in value


def is_entry(value: Body) -> bool:
    """Return whether a value is a journal entry; otherwise it is a snapshot."""
    return "entry_id" in value


if __name__ == "__main__":
    main()
