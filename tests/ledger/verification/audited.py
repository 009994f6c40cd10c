"""Provides a ledger in memory: a log of signed deliveries, and the workers' tables and topics.

Tests of the audit alter one part of the ledger, and check the differences that the audit reports.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

from ledger.deduplication import DAY_MS, PROGRESS_KEY, deduplicate
from ledger.events import Event, Reading
from ledger.notes import Note
from ledger.signature import sign
from ledger.trust import Trust
from ledger.verification.audit import check_document, check_order, check_payment, check_seen
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.gathered_orders import gather
from ledger.verification.history import Rules
from ledger.verification.journal_audit import JournalAudit, differing
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, ORDER_DOCUMENTS, PAYMENTS, PROGRESS, SEEN
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import Pipeline

READING = Reading()
PARTITIONS = 3
SECRET = b"whsec_test_key_test"
NOW_S = 1_750_000_000
SECOND_MS = 1000
RULES = Rules()
TRUST = Trust(secrets=(SECRET,))


def partition_of(key: bytes) -> int:
    return sum(key) % PARTITIONS


def body_of(event: Event) -> bytes:
    """Return an event's body; the event's ``created`` counts the seconds since ``NOW_S``."""
    data: dict[str, Any] = {"id": event.data_id}
    if event.money is not None:
        data |= {"amount": event.money.amount_minor, "currency": event.money.currency}
    data |= {"merchantReference": event.order_reference} if event.order_reference else {}
    data |= {"payment_id": event.payment_reference} if event.payment_reference else {}
    created = NOW_S + event.created
    envelope = {"id": event.event_id, "type": event.type, "created": created, "data": data}
    return json.dumps(envelope).encode()


def new_truth() -> Truth:
    return Truth(READING, TRUST, partition_of)


class Log:
    """A log in memory; each delivery is signed in the same way as Plexy signs."""

    def __init__(self) -> None:
        self.partitions: dict[int, list[Any]] = {p: [] for p in range(PARTITIONS)}

    def append(self, body: bytes, key: bytes, *, secret: bytes = SECRET, **more: Any) -> None:
        partition = more.get("partition", partition_of(key))
        signature = more.get("signature", sign(body, secret, NOW_S)).encode()
        arrived = more.get("arrived", b"%d000" % NOW_S)
        records = self.partitions[partition]
        records.append(
            SimpleNamespace(
                key=key,
                value=body,
                partition=partition,
                offset=len(records),
                timestamp=more.get("timestamp", NOW_S * 1000),
                headers=[("plexy-signature", signature), ("received-at-ms", arrived)],
            )
        )

    def ends(self) -> dict[int, int]:
        return {partition: len(records) for partition, records in self.partitions.items()}


def logged(events: list[Event], times: list[int] | None = None, **more: Any) -> list[Any]:
    """Return the records of a log that has these events, by default one second apart.

    ``times`` are the times of the deliveries, in milliseconds after ``NOW_S``.
    """
    log = Log()
    for number, event in enumerate(events):
        at = times[number] if times else number * SECOND_MS
        log.append(body_of(event), event.event_id.encode(), timestamp=NOW_S * 1000 + at, **more)
    return [record for records in log.partitions.values() for record in records]


class Ledger:
    """The workers' tables and topics for a log, as bytes; the rows of forgotten ids are kept.

    ``days`` has the day on which each event arrived; by default, all events arrive on day 0.
    ``uncounted`` are the bodies of further deliveries, which do not count.
    """

    def __init__(
        self,
        history: list[Event],
        cut: Any = lambda events: [events],
        days: Sequence[int] = (),
        uncounted: Sequence[bytes] = (),
    ) -> None:
        self.log = Log()
        for event, day in zip_longest(history, days, fillvalue=0):
            timestamp = NOW_S * 1000 + day * DAY_MS
            self.log.append(body_of(event), event.event_id.encode(), timestamp=timestamp)
        for body in uncounted:
            self.log.append(body, json.loads(body)["id"].encode())
        self.seen: dict[tuple[int, bytes], bytes] = {}
        events: list[Event] = []
        self.notes: list[Note] = []
        for partition, records in self.log.partitions.items():
            result = deduplicate(records, {}, READING)
            events += result.events
            self.notes += result.notes
            self.seen |= {(partition, key): SEEN.encode(seen) for key, seen in result.seen.items()}
            if records:
                self.seen[partition, PROGRESS_KEY] = PROGRESS.encode(result.progress)
        # Workers read partitions in parallel, and may fold the partitions' events in any sequence.
        # This ledger folds the events in the sequence of ``history``.
        order = {event.event_id: n for n, event in enumerate(history)}
        self.refold(sorted(events, key=lambda event: order.get(event.event_id, len(order))), cut)

    def refold(self, events: list[Event], cut: Any = lambda events: [events]) -> None:
        """Rebuild all tables and topics except ``seen`` by folding ``events`` in their sequence."""
        self.pipeline = Pipeline()
        self.pipeline.fold(cut([*events, *self.notes]))
        self.payments = _encoded(self.pipeline.payments, PAYMENTS)
        self.rows = self.pipeline.hop.rows
        self.orders = gather(self.rows)
        self.documents = _encoded(self.pipeline.documents(), ORDER_DOCUMENTS)
        self.entries = [
            (entry.entry_id.encode(), ENTRIES.encode(entry))
            for entry in self.pipeline.entries.values()
        ]

    def events(self) -> list[Event]:
        """Return the log's events with their places in the log."""
        return [fact for facts in self.truth().facts.values() for fact in facts.values()]

    def truth(self, *, settled: Mapping[int, int] | None = None) -> Truth:
        truth = new_truth()
        truth.settled = self.log.ends() if settled is None else settled
        for partition, records in self.log.partitions.items():
            truth.read(partition, records)
            truth.reached(partition, records[-1].offset + 1 if records else 0)
        return truth

    def differences(self, *, settled: Mapping[int, int] | None = None) -> list[Difference]:
        truth = self.truth(settled=settled)
        found = list(truth.faults)
        in_log = {(p, key) for p, seen in truth.seen.items() for key in (PROGRESS_KEY, *seen)}
        for partition, key in in_log | self.seen.keys():
            found += check_seen(truth, partition, key, self.seen.get((partition, key)))
        for key in {p.encode() for p in (*truth.facts, *truth.notes)} | self.payments.keys():
            found += check_payment(truth, 0, key, self.payments.get(key))
        known = (truth.payment(payment_id) for payment_id in (*truth.facts, *truth.notes))
        named = {order_id.encode() for payment in known for order_id in payment.orders}
        for key in named | self.orders.keys():
            found += check_order(truth, 0, key, self.orders.get(key))
        for key in named | self.documents.keys():
            found += check_document(truth, 0, key, self.documents.get(key))
        journal = JournalAudit(truth)
        for entry_key, value in self.entries:
            journal.read(entry_key, value)
        found += journal.differences(truth.facts)
        return found + list(differing(journal.balances()))


def _encoded(values: Mapping[str, Any], wire: Any) -> dict[bytes, bytes]:
    return {key.encode(): wire.encode(value) for key, value in values.items()}


def kinds(ledger: Ledger, **more: Any) -> list[DifferenceKind]:
    return sorted(difference.kind for difference in ledger.differences(**more))


def example() -> Ledger:
    return Ledger(
        [
            success("evt_1", 1, 500, order="ord_1"),
            refund("evt_2", 2, 100),
            failure("evt_3", 1, 70, payment="pay_2", order="ord_1"),
            success("evt_4", 5, 70, payment="pay_3", order="ord_2"),
            success("evt_5", 4, 80, payment="pay_3", order="ord_3"),
        ]
    )
