"""Payments: the facts about one payment, and the state that these facts produce.

Input: events, in any sequence, each any number of times. Output: the payment's state, the snapshots
for its order (or, if the payment moves, for several orders), the journal entries that it posts, and
the events that are set aside. A payment *is* its set of facts: its status, amounts, refunds, order
and anomalies are a pure function of that set. So neither the sequence of arrival nor a repetition
changes them. The size of the set is limited; ``ledger.kept_facts`` says which facts a payment
keeps. Next to its facts, a payment keeps notes about deliveries that do not count
(``ledger.notes``).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from ledger.events import TIME_IMPLAUSIBLE, Event
from ledger.journal import Entry, post
from ledger.kept_facts import ALWAYS_FIT, FactKey, KeptFacts, kept_of
from ledger.notes import Note, NoteKey, anomalies_of, kept_notes, shown, with_note
from ledger.payment_documents import (
    TOO_LARGE,
    PaymentDocument,
    PlacedPayment,
    document_of,
    document_of_notes,
)
from ledger.standing import Standing


class Payment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payment's state: the facts that it keeps, by event id.

    The facts decide which entries stand in the journal (are posted and not reversed): see
    ``Standing``. ``first_aside`` is the smallest key of the facts that are set aside (facts are
    sorted by time, then by event id), or ``None`` if every fact is kept. ``notes`` are sorted, and
    ``first_left`` is the smallest key of the notes that are left out.
    """

    payment_id: str
    facts: Mapping[str, Event] = {}
    first_aside: FactKey | None = None
    notes: tuple[Note, ...] = ()
    first_left: NoteKey | None = None

    @property
    def version(self) -> int:
        """The number of kept facts; ``Snapshot`` defines which of two states is the later one."""
        return len(self.facts)

    @property
    def order_id(self) -> str:
        """The order that the payment belongs to; see ``Standing``."""
        return standing_of(self).order_id

    @property
    def orders(self) -> set[str]:
        """The orders that show the payment or one of its notes.

        A void note (``ledger.notes`` says when a note is void) is never shown.
        """
        own = {self.order_id} if self.facts else set()
        return own | {
            order_id
            for note in shown(self.notes)
            if (order_id := _order_showing(self, note)) is not None
        }

    def snapshot_for(self, order_id: str) -> "Snapshot":
        """Return the snapshot for an order, which need not be the payment's own order."""
        return _snapshot(self, order_id, is_own=bool(self.facts) and order_id == self.order_id)


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message to an order about one payment.

    ``payment`` is the payment's document, or ``None`` if the payment does not belong to this order.
    ``notes`` are the notes that the order shows, and ``noted`` is the number of all notes of the
    payment. The later snapshot of a payment replaces the earlier snapshot. Until a fact is set
    aside, every new fact raises ``version``. After that, each change either gives ``first_aside`` a
    smaller key, or leaves ``first_aside`` unchanged and raises ``version``. The same rules hold for
    ``noted`` and ``first_left``. So each change of the payment gives a later snapshot.
    """

    order_id: str
    payment_id: str
    version: int
    payment: PaymentDocument | None
    first_aside: FactKey | None = None
    notes: tuple[Note, ...] = ()
    noted: int = 0
    first_left: NoteKey | None = None

    def is_newer_than(self, held: "Snapshot | None") -> bool:
        """Return whether this snapshot is later than ``held``."""
        return (
            held is None
            or _has_grown(self.version, self.first_aside, held.version, held.first_aside)
            or _has_grown(self.noted, self.first_left, held.noted, held.first_left)
        )


Key = TypeVar("Key", FactKey, NoteKey)


def _has_grown(count: int, first_out: Key | None, was: int, first_was_out: Key | None) -> bool:
    """Return whether a limited set of facts or notes has changed.

    The set has gained an element, or the first element that it leaves out now has a smaller key.
    """
    if first_out == first_was_out:
        return count > was
    if first_was_out is None:
        return True
    return first_out is not None and first_out < first_was_out


def _may_show(note: Note) -> str | None:
    """Return the order that may show a note, or ``None``.

    The result does not depend on the order that the note's payment belongs to. If the note names an
    order, this order may show it. A note about a refused event may name no order. Then the order
    whose id equals the payment's id may show the note until the payment has facts, because the
    event would have counted in that order.
    """
    return note.order_reference or (note.payment_id if note.is_refused else None)


def _order_showing(payment: Payment, note: Note) -> str | None:
    return note.order_reference if payment.facts else _may_show(note)


def _snapshot(payment: Payment, order_id: str, *, is_own: bool) -> Snapshot:
    notes = shown(payment.notes) if payment.notes else ()
    if notes:
        notes = tuple(
            note
            for note in notes
            if (is_own and note.payment_id) or _order_showing(payment, note) == order_id
        )
    return Snapshot(
        order_id,
        payment.payment_id,
        len(payment.facts),
        describe(payment) if is_own else None,
        payment.first_aside,
        notes,
        len(payment.notes),
        payment.first_left,
    )


class FoldedPayments(msgspec.Struct):
    """The result of folding events: the payments that changed, and the records to publish.

    ``reused`` are events that contradict an earlier fact with the same id. Deduplication lets them
    pass if it has forgotten the id. Even then, only the earlier fact counts. ``aside`` are the
    facts that are set aside.
    """

    payments: dict[str, Payment]
    snapshots: list[Snapshot]
    entries: list[Entry]
    reused: list[Event]
    aside: list[Event]


def fold_payments(events: Iterable[Event | Note], known: Mapping[str, Payment]) -> FoldedPayments:
    """Fold events and notes into payments; ``known`` holds the payments' earlier states.

    Entries are created for one event at a time. An order to which a payment belonged only between
    two events also gets a snapshot. So if the events are folded again after a crash, the same
    records are published, however the events are divided into chunks.
    """
    entries: list[Entry] = []
    reused: list[Event] = []
    at_work: dict[str, PaymentFold] = {}
    for event in events:
        payment_id = event.kept_under
        folding = at_work.get(payment_id)
        if folding is None:
            folding = at_work[payment_id] = PaymentFold(payment_id, known.get(payment_id))
        if isinstance(event, Note):
            folding.note(event)
            continue
        fact = folding.facts.get(event.event_id)
        if fact is None:
            entries.extend(folding.add(event))
        elif not _says_the_same(fact, event):
            reused.append(event)
    changed = [folding for folding in at_work.values() if folding.changed]
    return FoldedPayments(
        payments={folding.payment_id: folding.payment for folding in changed},
        snapshots=[snapshot for folding in changed for snapshot in folding.snapshots()],
        entries=entries,
        reused=reused,
        aside=[fact for folding in at_work.values() for fact in folding.aside],
    )


def payment_of(payment_id: str, facts: Mapping[str, Event], notes: Iterable[Note] = ()) -> Payment:
    """Return the payment after all these facts and notes have been folded."""
    return Payment(payment_id, *kept_of(facts), *kept_notes(notes))


def standing_of(payment: Payment) -> Standing:
    """Return the standing facts of a payment."""
    return Standing(payment.payment_id, payment.facts.values())


def describe(payment: Payment) -> PaymentDocument:
    """Return the document of a payment."""
    return document_of(
        payment.payment_id, payment.facts, is_too_large=payment.first_aside is not None
    )


def describe_placed(payment: Payment) -> PlacedPayment | None:
    """Return a payment's document with its order; ``None`` if the payment has only void notes."""
    notes = shown(payment.notes)
    if payment.facts:
        document = msgspec.structs.asdict(describe(payment))
    elif notes:
        document = msgspec.structs.asdict(document_of_notes(payment.payment_id, notes))
    else:
        return None
    document["anomalies"] = tuple(sorted({*document["anomalies"], *note_anomalies(payment)}))
    order_id = payment.order_id
    if not payment.facts:
        order_id = next((each.order_reference for each in notes if each.order_reference), order_id)
    return PlacedPayment(**document, order_id=order_id, version=payment.version, notes=notes)


def note_anomalies(holder: "Payment | Snapshot") -> set[str]:
    """Return the anomalies of the notes of a payment or a snapshot."""
    names = anomalies_of(shown(holder.notes))
    return {*names, TOO_LARGE} if holder.first_left is not None else names


class PaymentFold:
    """A payment while new facts are folded into it.

    The constructor reads every fact once. After that, the cost of adding a fact does not grow with
    the size of the payment.
    """

    def __init__(self, payment_id: str, before: Payment | None) -> None:
        # The copy leaves the earlier state unchanged.
        facts = dict(before.facts) if before else {}
        self.payment_id = payment_id
        self.facts = facts
        self.first_aside = before.first_aside if before else None
        self.notes = before.notes if before else ()
        self.first_left = before.first_left if before else None
        self.changed = False
        self.aside: list[Event] = []
        self._kept: KeptFacts | None = None
        self._visited: list[str] = []
        self._standing = Standing(payment_id, facts.values())

    @property
    def payment(self) -> Payment:
        """The payment in its current state."""
        return Payment(self.payment_id, self.facts, self.first_aside, self.notes, self.first_left)

    def note(self, note: Note) -> None:
        """Add a note, which posts nothing."""
        notes, first_left = with_note(self.notes, self.first_left, note)
        if (notes, first_left) != (self.notes, self.first_left):
            self.changed = True
            self.notes, self.first_left = notes, first_left

    def add(self, event: Event) -> list[Entry]:
        """Add a new fact; return the entries that it posts."""
        if len(self.facts) >= ALWAYS_FIT:
            return self._add_where_it_fits(event)
        if self.facts:
            self._visited.append(self._standing.order_id)
        self.changed = True
        self.facts[event.event_id] = event
        return self._post(event)

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield snapshots for the payment's own order and for all other orders that may list it.

        The other orders are the payment's former orders, and all orders that its facts or notes
        name. So an order knows every payment that ever named the order, in whatever sequence the
        events arrive.
        """
        payment = self.payment
        for order_id in self._others() if self._visited or self.notes else ():
            yield _snapshot(payment, order_id, is_own=False)
        if self.facts:
            yield _snapshot(payment, self._standing.order_id, is_own=True)

    def _others(self) -> list[str]:
        others = {order_id for note in self.notes if (order_id := _may_show(note)) is not None}
        others.update(self._visited)
        if self._standing.names_several:
            references = (fact.order_reference for fact in self.facts.values())
            others.update(each for each in references if each is not None)
        return sorted(others - {self._standing.order_id} if self.facts else others)

    def _add_where_it_fits(self, event: Event) -> list[Entry]:
        """Add a fact if there is room, and set aside the later facts that no longer fit."""
        kept = self._kept = self._kept or KeptFacts(self.facts, self.first_aside)
        order_id = self._standing.order_id
        aside = kept.add(event)
        self.aside += aside
        if aside and kept.first_aside == self.first_aside:
            # The fact is later than every kept fact, and there was no room for it.
            return []
        self.first_aside = kept.first_aside
        self.changed = True
        self._visited.append(order_id)
        entries = self._post(event) if event.event_id in self.facts else []
        for fact in aside:
            for change in self._standing.remove(fact):
                entries += post(*change)
        return entries

    def _post(self, event: Event) -> list[Entry]:
        changes = self._standing.add(event)
        # Nearly every new fact affects only one subject (a movement of money), and changes which
        # facts stand for it.
        if len(changes) == 1:
            return post(*changes[0])
        return [entry for change in changes for entry in post(*change)]


def _says_the_same(fact: Event, event: Event) -> bool:
    """Return whether two events are equal, except for their places in the log.

    An implausible time is replaced by the time of the record's arrival. So if one of the events has
    such a time, their times and marks are not compared.
    """
    again = msgspec.structs.replace(event, partition=fact.partition, offset=fact.offset)
    if TIME_IMPLAUSIBLE in {*fact.marks, *event.marks}:
        again = msgspec.structs.replace(again, created=fact.created, marks=fact.marks)
    return again == fact
