"""History: the outcome of each delivery of an order's events, and the order at any earlier time.

Input: the log's records of all deliveries of some events. Output: each delivery with its outcome,
and the state of the order at any time, after all deliveries up to that time. The records are folded
again with the ledger's own rules, so the result is the state that the ledger had at that time.

The time of a delivery is its time of arrival. An event may *occur* before a given time, but arrive
after that time. The event counts only from its arrival on.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ledger.deduplication import FORGET_AFTER_MS, Seen, deduplicate
from ledger.dialects import is_bearer, read_envelope
from ledger.envelope import Envelope
from ledger.events import Event, Reading
from ledger.journal import Entry
from ledger.notes import COUNTS, Note
from ledger.orders import OrderDocument, Tally, Totals, describe, fold_orders
from ledger.payments import PaymentFold, Snapshot, fold_payments
from ledger.records import Place, SignedRecord
from ledger.times import seconds_of
from ledger.trust import Trust

FOLDED: Final = "folded"
ACCEPTED: Final = "accepted"
DUPLICATE: Final = "duplicate"
GOOD: Final = "good"
NOT_CHECKED: Final = "not_checked"
BEARER: Final = "bearer"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The settings with which the log is folded.

    If ``signed_only``, a delivery that has no good signature does not count.
    """

    reading: Reading = Reading()
    forget_after_ms: int = FORGET_AFTER_MS
    signed_only: bool = False


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery and its outcome.

    ``outcome`` is ``folded`` (it counts), ``duplicate``, ``unfolded`` (a type that is kept but not
    folded), ``accepted`` (in the log, but not judged yet), or the reason for its rejection, which
    ``detail`` explains in a sentence. ``created`` is the time by which the event is sorted among
    other events, in Unix seconds; ``received_at_ms`` is the delivery's time of arrival, in Unix
    milliseconds. A delivery that counts has ``amount``, in minor units, and ``currency``.
    ``signature`` is ``good``, ``not_checked``, ``bearer`` (a token authenticated the sender, so
    there is no signature), or the fault that a check finds now. ``headers`` and ``body`` are
    unchanged; JSON has them as base64. They are present only on request.
    """

    event_id: str
    place: Place
    received_at_ms: int
    outcome: str
    detail: str = ""
    type: str | None = None
    created: int | None = None
    payment_id: str | None = None
    order_reference: str | None = None
    amount: int | None = None
    currency: str | None = None
    signature: str = NOT_CHECKED
    headers: dict[str, bytes] | None = None
    body: bytes | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The order after one delivery; a missing order has the version 0 and the status ``None``.

    ``entries`` are the entries that the delivery posted to the journal.
    """

    place: Place
    event_id: str
    outcome: str
    version: int
    status: str | None = None
    totals: dict[str, Totals] = {}
    anomalies: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


class _Judged(msgspec.Struct, frozen=True):
    """A record with its verdict; ``event`` is ``None`` if the record does not count."""

    record: SignedRecord
    event_id: str
    outcome: str
    detail: str
    event: Event | None = None
    notes: Sequence[Note] = ()

    @property
    def facts(self) -> list[Event | Note]:
        """The record's event and notes, which are folded into payments."""
        return [*([self.event] if self.event else ()), *self.notes]


def deliveries(
    records: Iterable[SignedRecord],
    rules: Rules,
    trust: Trust | None,
    *,
    raw: bool = False,
) -> list[Delivery]:
    """Return each delivery, in the order of arrival; ``trust`` checks signatures."""
    return [_describe(judged, trust, raw=raw) for judged in _judge(records, rules, trust)]


def accepted(
    records: Iterable[SignedRecord], trust: Trust | None, *, raw: bool = False
) -> list[Delivery]:
    """Return the deliveries of records that no worker has judged yet."""
    judged = (
        _Judged(each, (each.key or b"").decode(errors="replace"), ACCEPTED, "")
        for _, each in _by_arrival(records)
    )
    return [_describe(each, trust, raw=raw) for each in judged]


def steps(
    records: Iterable[SignedRecord], rules: Rules, order_id: str, trust: Trust | None = None
) -> list[Step]:
    """Return the state of an order after each delivery; deliveries are sorted by arrival."""
    fold = _Fold(order_id)
    told: list[Step] = []
    for judged in _judge(records, rules, trust):
        entries = tuple(entry for fact in judged.facts for entry in fold.add(fact))
        place = Place(judged.record.partition, judged.record.offset)
        step = Step(
            place=place,
            event_id=judged.event_id,
            outcome=judged.outcome,
            version=fold.tally.events,
            entries=entries,
        )
        if fold.has_order:
            step = msgspec.structs.replace(
                step,
                status=fold.tally.status(),
                totals=fold.tally.totals(),
                anomalies=tuple(sorted(fold.tally.anomaly_names())),
            )
        told.append(step)
    return told


def facts_of(
    records: Iterable[SignedRecord], rules: Rules, trust: Trust | None = None
) -> list[Event | Note]:
    """Return the events that count, and the notes, in the order of arrival."""
    return [fact for judged in _judge(records, rules, trust) for fact in judged.facts]


def events_of(
    records: Iterable[SignedRecord], rules: Rules, trust: Trust | None = None
) -> list[Event]:
    """Return the events that count, in the order of arrival."""
    return [fact for fact in facts_of(records, rules, trust) if isinstance(fact, Event)]


def order_of(events: Iterable[Event | Note], order_id: str) -> OrderDocument | None:
    """Return the order after these events and notes; their division into chunks has no effect."""
    order = fold_orders(fold_payments(events, {}).snapshots, {}).get(order_id)
    return describe(order) if order else None


def payments_of(events: Iterable[Event | Note], order_id: str) -> set[str]:
    """Return the ids of the payments that belong to an order after these events and notes."""
    payments = fold_payments(events, {}).payments
    return {name for name, each in payments.items() if each.facts and each.order_id == order_id}


def as_of(
    records: Iterable[SignedRecord],
    rules: Rules,
    order_id: str,
    at_ms: int,
    trust: Trust | None = None,
) -> OrderDocument | None:
    """Return the order as of a time of arrival; ``None`` if it did not exist yet."""
    by_then = [record for arrived_ms, record in _by_arrival(records) if arrived_ms <= at_ms]
    return order_of(facts_of(by_then, rules, trust), order_id)


class _Fold:
    """The two hops after deduplication, in memory, for one order.

    After an event, the tally is updated only for the payment that the event changes. So the cost of
    an event does not depend on the size of the order.
    """

    def __init__(self, order_id: str) -> None:
        self.tally = Tally()
        self._order_id = order_id
        self._payments: dict[str, PaymentFold] = {}
        self._held: dict[str, Snapshot] = {}

    @property
    def has_order(self) -> bool:
        """Whether the order has a payment or a note."""
        return bool(self.tally.payments or self.tally.notes)

    def add(self, event: Event | Note) -> list[Entry]:
        """Fold an event or a note; return the entries that it posts."""
        payment_id, entries = event.kept_under, []
        payment = self._payments.get(payment_id)
        if payment is None:
            payment = self._payments[payment_id] = PaymentFold(payment_id, None)
        if isinstance(event, Note):
            payment.note(event)
        elif event.event_id not in payment.facts:
            entries = payment.add(event)
        for snapshot in payment.snapshots():
            before = self._held.get(payment_id)
            if snapshot.order_id == self._order_id and snapshot.is_newer_than(before):
                if before is not None:
                    self.tally.take(self._order_id, before)
                self.tally.add(self._order_id, snapshot)
                self._held[payment_id] = snapshot
        return entries


def _judge(records: Iterable[SignedRecord], rules: Rules, trust: Trust | None) -> list[_Judged]:
    """Judge records one at a time, in the order of arrival, as ``dedupe`` does."""
    enforced = trust if rules.signed_only else None
    known: dict[tuple[int, bytes], Seen] = {}
    judged: list[_Judged] = []
    for _, record in _by_arrival(records):
        key = record.key or b""
        place = (record.partition, key)
        first = {key: known[place]} if place in known else {}
        result = deduplicate(
            [record],
            first,
            rules.reading,
            forget_after_ms=rules.forget_after_ms,
            trust=enforced,
        )
        for seen in result.seen.values():
            known[place] = seen
        event_id, event = key.decode(errors="replace"), next(iter(result.events), None)
        outcome, detail = _outcome(result.outcomes), ""
        if result.rejected:
            rejection = result.rejected[0].rejection
            outcome, detail = str(rejection.reason), rejection.detail
        elif outcome == DUPLICATE:
            detail = f"the event first arrived at offset {known[place].offset}"
        judged.append(_Judged(record, event_id, outcome, detail, event, result.notes))
    return judged


def _outcome(outcomes: list[str]) -> str:
    """Return the outcome of a single record, without the type or reason after the dot."""
    (name,) = outcomes
    return name.partition(".")[0]


def _by_arrival(records: Iterable[SignedRecord]) -> list[tuple[int, SignedRecord]]:
    """Return records sorted by the log's time, each with this time in Unix milliseconds.

    Within a partition, the log's time never goes back, although a clock may go back.
    """
    latest: dict[int, int] = {}
    timed = []
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        at = latest[record.partition] = max(latest.get(record.partition, 0), record.timestamp)
        timed.append((at, record))
    # The sort is stable: records with the same time stay in the log's order.
    return sorted(timed, key=lambda each: each[0])


def _describe(judged: _Judged, trust: Trust | None, *, raw: bool) -> Delivery:
    record, event = judged.record, judged.event
    body = record.value or b""
    envelope = read_envelope(record)
    known: dict[str, Any] = {}
    if isinstance(envelope, Envelope):
        known |= {"type": envelope.type, "created": seconds_of(envelope.created)}
    if event is not None:
        known |= {"created": event.created, "payment_id": event.payment_id}
        known |= {"order_reference": event.order_reference}
        if event.money is not None:
            known |= {"amount": event.money.amount_minor, "currency": event.money.currency}
    for note in () if event is not None else judged.notes:
        if note.outcome != COUNTS:
            known |= {"payment_id": note.payment_id, "order_reference": note.order_reference}
    if raw:
        known |= {"headers": dict(record.headers), "body": body}
    return Delivery(
        event_id=judged.event_id,
        place=Place(record.partition, record.offset),
        received_at_ms=record.timestamp,
        outcome=judged.outcome,
        detail=judged.detail,
        signature=signature_of(record, trust),
        **known,
    )


def signature_of(record: SignedRecord, trust: Trust | None) -> str:
    """Return the result of a signature's check, as in ``Delivery.signature``."""
    if trust is not None and (fault := trust.fault(record)):
        return fault
    if is_bearer(record.headers):
        return BEARER
    return NOT_CHECKED if trust is None else GOOD
