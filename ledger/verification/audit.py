"""The audit of the tables: compares each value with the facts of the log of record.

Input: the truth (``ledger.verification.truth``), and the value of a table or topic under a key, or
``None`` for no value. Output: the differences, or nothing if the log explains the value.

A value is judged by the facts (the events that count) that it names. These must be facts of the
log, the rest of the value must follow from exactly these facts, and no settled fact may be missing.
A fact is settled if the workers had folded it before any value was read. So a value may contain
facts that are not settled yet, but it must contain every settled fact.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from ledger.deduplication import PROGRESS_KEY, START, Progress, Seen
from ledger.events import Event
from ledger.large_orders import LargeOrder, OrderState, order_of
from ledger.notes import Note, shown
from ledger.orders import Order, OrderDocument, describe
from ledger.payment_documents import TOO_LARGE
from ledger.payments import Payment, Snapshot
from ledger.payments import describe as describe_payment
from ledger.verification.differences import Difference, DifferenceKind, references
from ledger.verification.fields import unlike
from ledger.verification.gathered_orders import faults, whole_order
from ledger.verification.note_audit import note_fault
from ledger.verification.truth import Truth
from ledger.wire import ORDER_DOCUMENTS, ORDERS, PAYMENTS, PROGRESS, SEEN, decoded

Check = Callable[[Truth, int, bytes, bytes | None], Iterable[Difference]]
"""Judges the value under a key of a partition."""

# A difference of a large order names the events of at most this many of its payments.
_MOST_NAMED_PAYMENTS: Final = 100


def check_seen(
    truth: Truth, partition: int, key: bytes, value: bytes | None
) -> Iterator[Difference]:
    """Judge a row of the table ``seen``: an event id, or the progress of a partition.

    The row of a forgotten id may or may not have been deleted. If the id was seen again, the table
    may still have the old row.
    """
    if key == PROGRESS_KEY:
        yield from _check_progress(truth, partition, value)
        return
    first = truth.seen.get(partition, {}).get(key)
    held = decoded(SEEN.decode, value)
    settled = first is not None and first.offset < truth.settled.get(partition, 0)
    if value is not None and held is None:
        yield _about_event(truth, DifferenceKind.SEEN_DIFFERS, partition, key, "it can't be read")
    elif held is None:
        if first is not None and settled and not truth.is_forgotten(partition, first):
            detail = f"the table lacks the event, which is in the log at offset {first.offset}"
            yield _about_event(truth, DifferenceKind.SEEN_MISSING, partition, key, detail)
    elif truth.is_forgotten(partition, held) and not settled:
        return
    elif first is None:
        detail = "the table has the event, but the log does not"
        yield _about_event(truth, DifferenceKind.SEEN_UNEXPLAINED, partition, key, detail)
    elif (due := _row_read_earlier(truth, partition, key, held, first)) != held:
        yield _about_event(truth, DifferenceKind.SEEN_DIFFERS, partition, key, unlike(due, held))


def _row_read_earlier(truth: Truth, partition: int, key: bytes, held: Seen, now: Seen) -> Seen:
    """Return the row that is expected in a table that was read before the log.

    The row may lack the latest repeats. It may also lack the delivery that counts, if that delivery
    corrected earlier deliveries of the id.
    """
    settled = truth.settled.get(partition, 0)
    before = truth.uncorrected.get(partition, {}).get(key)
    if before is not None and held.offset == before.offset and now.offset >= settled:
        now = before
    least = sum(offset < settled for offset in now.repeats)
    reached = max(least, min(len(held.repeats), len(now.repeats)))
    repeats = now.repeats[:reached]
    last = max((now.offset, *repeats))
    uncounted = tuple(each for each in now.uncounted if each.offset <= last)
    return replace(now, repeats=repeats, uncounted=uncounted)


def _check_progress(truth: Truth, partition: int, value: bytes | None) -> Iterator[Difference]:
    """Judge the progress of ``dedupe``, which skips all records up to its progress."""
    reached = truth.progress.get(partition, START)
    least = truth.settled.get(partition, 0) - 1
    held = START if value is None else decoded(PROGRESS.decode, value)
    kind = DifferenceKind.SEEN_MISSING if value is None else DifferenceKind.SEEN_DIFFERS
    if held is None:
        detail = "its progress can't be read"
    elif value is None:
        detail = f"its progress is missing, but it was folded up to offset {least}"
    else:
        detail = (
            f"its progress is offset {held.offset}, at {held.timestamp_ms} ms; expected offset "
            f"{least} to {reached.offset}, where the time is {reached.timestamp_ms} ms"
        )
    if held is not None and held.rules != reached.rules and held.offset >= 0:
        detail = (
            f"it was folded by the rules {held.rules or 'of an earlier release'}, expected "
            f"{reached.rules}"
        )
        yield Difference(kind=kind, subject=f"partition {partition} of seen", detail=detail)
    elif (
        held is None or not least <= held.offset <= reached.offset or _has_wrong_time(held, reached)
    ):
        yield Difference(kind=kind, subject=f"partition {partition} of seen", detail=detail)


def _has_wrong_time(held: Progress, reached: Progress) -> bool:
    """Return whether the time in the row can't be the log's time."""
    if held.offset == reached.offset:
        return held.timestamp_ms != reached.timestamp_ms
    return held.timestamp_ms > reached.timestamp_ms


def check_payment(
    truth: Truth, _partition: int, key: bytes, value: bytes | None
) -> Iterator[Difference]:
    """Judge a value of the table ``payments``."""
    payment_id = _text(key)
    known = truth.facts.get(payment_id, {})
    kind, detail = _payment_fault(truth, payment_id, value)
    if kind is not None:
        order_id = truth.payment(payment_id).order_id if known else None
        yield Difference(
            kind=kind,
            subject=f"payment {payment_id}",
            detail=detail,
            events=references(known.values()),
            payment_id=payment_id,
            order_id=order_id,
        )


def check_order(
    truth: Truth, _partition: int, key: bytes, value: bytes | None
) -> Iterator[Difference]:
    """Judge an order of the table ``orders``; a large order includes its rows (``gather``)."""
    order_id = _text(key)
    if value is None:
        yield from _absent(
            truth, order_id, DifferenceKind.ORDER_MISSING, "the table does not have it"
        )
        return
    found = decoded(_read_order, value)
    if found is None or found[1].order_id != order_id:
        detail = "it can't be read" if found is None else f"its stored id is {found[1].order_id}"
        yield _about_order(truth, DifferenceKind.ORDER_DIFFERS, order_id, detail)
        return
    state, order = found
    explained = any(truth.naming(order_id))
    kind = DifferenceKind.ORDER_DIFFERS if explained else DifferenceKind.ORDER_UNEXPLAINED
    yield from _judge(truth, order, kind)
    if isinstance(state, LargeOrder):
        for detail in faults(state, order):
            yield _about_order(truth, kind, order_id, detail)


def check_document(
    truth: Truth, _partition: int, key: bytes, value: bytes | None
) -> Iterator[Difference]:
    """Judge the latest document of an order in ``ledger.orders``."""
    order_id = _text(key)
    if value is None:
        yield from _absent(
            truth, order_id, DifferenceKind.DOCUMENT_MISSING, "the topic has no document of it"
        )
        return
    document = decoded(ORDER_DOCUMENTS.decode, value)
    if document is None:
        yield _about_order(truth, DifferenceKind.DOCUMENT_DIFFERS, order_id, "it can't be read")
        return
    explained = any(truth.naming(order_id))
    kind = DifferenceKind.DOCUMENT_DIFFERS if explained else DifferenceKind.DOCUMENT_UNEXPLAINED
    if document.summary is not UNSET:
        yield from _judge_summary(truth, order_id, document, kind)
        return
    order = _order_of(document, order_id)
    faults = list(_judge(truth, order, kind))
    faults = faults or list(_document_fault(truth, order_id, document, describe(order), kind))
    yield from faults or _judge_summary(truth, order_id, document, kind)


def _judge_summary(
    truth: Truth, order_id: str, document: OrderDocument, kind: DifferenceKind
) -> Iterator[Difference]:
    """Judge a document that may leave out facts and notes.

    Until all facts and notes are settled, the document is not judged.
    """
    named = list(truth.naming(order_id))
    if not all(map(truth.is_at_rest, named)):
        return
    residents = (truth.payment(each) for each in truth.residents(order_id))
    due = Order(order_id, {each.payment_id: each.snapshot_for(order_id) for each in residents})
    yield from _document_fault(truth, order_id, document, describe(due), kind)


def _document_fault(
    truth: Truth,
    order_id: str,
    document: OrderDocument,
    expected: OrderDocument | None,
    kind: DifferenceKind,
) -> Iterator[Difference]:
    if document != expected:
        detail = "it has no payments" if expected is None else unlike(expected, document)
        yield _about_order(truth, kind, order_id, detail)


def _payment_fault(
    truth: Truth, payment_id: str, value: bytes | None
) -> tuple[DifferenceKind | None, str]:
    known = truth.facts.get(payment_id, {})
    if value is None:
        named: list[Event | Note] = [*known.values(), *_notes_of(truth, payment_id)]
        settled = any(truth.is_settled(each) for each in named)
        return (DifferenceKind.PAYMENT_MISSING if settled else None), "the table does not have it"
    held = decoded(PAYMENTS.decode, value)
    if not truth.knows(payment_id) and (held is None or held.facts or shown(held.notes)):
        return DifferenceKind.PAYMENT_UNEXPLAINED, "the log has no fact about it"
    if held is None:
        return DifferenceKind.PAYMENT_DIFFERS, "it can't be read"
    detail = (
        _fact_fault(held, payment_id, known)
        or _missing_facts(truth, payment_id, held)
        or note_fault(truth, payment_id, shown(held.notes), _notes_of(truth, payment_id))
    )
    whole = truth.payment(payment_id)
    if not detail and truth.is_at_rest(payment_id) and held.first_aside != whole.first_aside:
        detail = f"the first fact set aside: expected {whole.first_aside}, got {held.first_aside}"
    return (DifferenceKind.PAYMENT_DIFFERS if detail else None), detail


def _notes_of(truth: Truth, payment_id: str) -> tuple[Note, ...]:
    return shown(truth.payment(payment_id).notes)


def _fact_fault(held: Payment, payment_id: str, known: Mapping[str, Event]) -> str:
    """Say what is wrong with a payment's facts; return an empty text if nothing is wrong."""
    if held.payment_id != payment_id:
        return f"its stored id is {held.payment_id}"
    for event_id, fact in held.facts.items():
        logged = known.get(event_id)
        if logged is None:
            return f"the log has no event {event_id} about it"
        if fact != logged:
            return f"event {event_id}: {unlike(logged, fact)}"
    return "" if held.facts or held.notes else "it holds no fact"


def _missing_facts(truth: Truth, payment_id: str, held: Payment) -> str:
    """Name the facts that a payment should have but lacks; return an empty text if it lacks none.

    Which facts a payment sets aside is known only once all its facts are settled.
    """
    whole = truth.payment(payment_id)
    if whole.first_aside is not None and not truth.is_at_rest(payment_id):
        return ""
    if (held.first_aside is None) != (whole.first_aside is None):
        return f"{'no' if whole.first_aside is None else 'a'} fact should be set aside"
    lacking = [
        event_id
        for event_id, fact in whole.facts.items()
        if event_id not in held.facts and truth.is_settled(fact)
    ]
    if lacking:
        return f"it lacks event {', '.join(sorted(lacking))}"
    more = sorted(held.facts.keys() - whole.facts.keys())
    return f"it should set aside event {', '.join(more)}" if more else ""


def _judge(truth: Truth, order: Order, kind: DifferenceKind) -> Iterator[Difference]:
    """Yield an order's wrong snapshots, and the payments that it should have but lacks."""
    order_id = order.order_id
    for payment_id, held in order.payments.items():
        detail = _snapshot_fault(truth, order_id, payment_id, held)
        if detail:
            yield _about_order(truth, kind, order_id, detail, payment_id)
    for payment_id in truth.residents(order_id):
        if payment_id not in order.payments:
            yield _about_order(truth, kind, order_id, "it is not in the order", payment_id)
    if not order.payments:
        yield _about_order(truth, kind, order_id, "it holds no payment")


def _snapshot_fault(truth: Truth, order_id: str, payment_id: str, held: Snapshot) -> str:
    if (held.order_id, held.payment_id) != (order_id, payment_id):
        return f"its snapshot is of payment {held.payment_id} in order {held.order_id}"
    if not truth.knows(payment_id) and (held.version or held.payment or held.notes):
        return "the log has no fact about it"
    expected = truth.payment(payment_id).snapshot_for(order_id).notes
    if fault := note_fault(truth, payment_id, held.notes, expected, order_id):
        return fault
    known = truth.facts.get(payment_id, {})
    if held.payment is None:
        return _withdrawal_fault(truth, held)
    facts = {}
    for event in held.payment.events:
        fact = known.get(event.event_id)
        if fact is None:
            return f"the log has no event {event.event_id} about it"
        facts[event.event_id] = fact
    follows = Payment(payment_id, facts, held.first_aside)
    return _missing_facts(truth, payment_id, follows) or _content_fault(held, follows)


def _content_fault(held: Snapshot, follows: Payment) -> str:
    """Say how a snapshot differs from what its facts produce.

    The text is empty if there is no difference.
    """
    if not follows.facts:
        return "its snapshot names no event"
    if follows.order_id != held.order_id:
        return f"it belongs to order {follows.order_id}"
    if follows.version != held.version:
        return f"version: expected {follows.version}, got {held.version}"
    return unlike(describe_payment(follows), held.payment)


def _withdrawal_fault(truth: Truth, held: Snapshot) -> str:
    """Say why the snapshot of a payment that left the order can't be right.

    The text is empty if the snapshot can be right.

    How many facts the payment had when it left depends on the sequence in which the facts arrived.
    So only the bounds of the number are checked.
    """
    payment_id, count = held.payment_id, len(truth.facts.get(held.payment_id, {}))
    belongs = count and truth.payment(payment_id).order_id == held.order_id
    if belongs and truth.is_at_rest(payment_id):
        return "recorded as having left the order, but it belongs to the order"
    if held.noted:
        # The snapshot is here because of a note, which may be void by now.
        return ""
    if not truth.has_named(held.order_id, payment_id):
        return "it left the order, but was never in it"
    # One fact puts the payment into the order, and a second fact moves it away.
    if not 2 <= held.version <= count:  # noqa: PLR2004
        return (
            f"it left the order at version {held.version}, but the log has {count} facts about it: "
            f"expected a version from 2 to {count}"
        )
    return ""


def _absent(truth: Truth, order_id: str, kind: DifferenceKind, detail: str) -> Iterator[Difference]:
    if any(truth.residents(order_id)):
        yield _about_order(truth, kind, order_id, detail)


def _order_of(document: OrderDocument, order_id: str) -> Order:
    order = order_of(order_id, document.payments)
    for held in order.payments.values():
        if held.payment and TOO_LARGE in held.payment.anomalies:
            # A document does not say which fact was set aside first, so this key stands for any
            # key.
            order.payments[held.payment_id] = replace(held, first_aside=(0, ""))
    for note in document.notes or ():
        held = order.payments.get(note.kept_under) or Snapshot(order_id, note.kept_under, 0, None)
        notes = (*held.notes, note)
        order.payments[held.payment_id] = replace(held, notes=notes, noted=len(notes))
    return order


def _about_order(
    truth: Truth, kind: DifferenceKind, order_id: str, detail: str, payment_id: str | None = None
) -> Difference:
    payments = truth.naming(order_id) if payment_id is None else [payment_id]
    payments = islice(payments, _MOST_NAMED_PAYMENTS)
    facts = [fact for each in payments for fact in truth.facts.get(each, {}).values()]
    return Difference(
        kind=kind,
        subject=f"order {order_id}",
        detail=detail if payment_id is None else f"payment {payment_id}: {detail}",
        events=references(facts),
        payment_id=payment_id,
        order_id=order_id,
    )


def _about_event(
    truth: Truth, kind: DifferenceKind, partition: int, key: bytes, detail: str
) -> Difference:
    event_id = _text(key)
    fact = truth.find(partition, event_id)
    return Difference(
        kind=kind,
        subject=f"event {event_id}",
        detail=detail,
        events=references([fact] if fact else []),
        payment_id=fact.payment_id if fact else None,
        order_id=truth.payment(fact.payment_id).order_id if fact else None,
    )


def _read_order(value: bytes) -> tuple[OrderState, Order]:
    state = ORDERS.decode(value)
    return state, whole_order(state)


def _text(key: bytes) -> str:
    return key.decode(errors="replace")
