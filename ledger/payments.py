"""Payments: the facts seen under one payment id, and the state they produce.

Input: events, in any order, any number of times. Output: the payment's state, the snapshots for its
order (or orders, when it moves), the journal entries that it posts, and the events that are set
aside. A payment *is* its set of facts: its status, amounts, refunds, order and anomalies are a pure
function of that set, so neither the order of arrival nor a repetition changes them. The size of
the set is limited; ``ledger.kept_facts`` says which facts a payment keeps.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from ledger.events import (
    FOLDED_TYPES,
    PAYMENT_FAILED,
    PAYMENT_SUCCEEDED,
    REFUND_SUCCEEDED,
    TIME_IMPLAUSIBLE,
    Event,
    Mark,
)
from ledger.journal import Entry, Subject, post, reversal_of
from ledger.kept_facts import ALWAYS_FIT, FactKey, KeptFacts, kept_of
from ledger.kept_facts import key_of as _by_time
from ledger.published import (
    NOT_EMPTY,
    AmountMinor,
    Currency,
    Id,
    Position,
    UnixSeconds,
    meaning,
)

PaymentStatus = Literal["succeeded", "failed", "unknown"]

Anomaly = Literal[
    Mark,
    "conflicting_amount",
    "conflicting_refund",
    "currency_mismatch",
    "failed_after_success",
    "order_id_is_payment_id",
    "payment_too_large",
    "refund_exceeds_payment",
    "refund_identity_uncertain",
    "refund_without_payment",
]
"""The contradictions among facts, as named in the documents of payments and orders."""

TOO_LARGE: Final[Anomaly] = "payment_too_large"

# Later versions may add names, so programs downstream must accept unknown ones.
ANOMALIES: Final[dict[str, Any]] = {
    "uniqueItems": True,
    "examples": [sorted(get_args(Anomaly))],
}

_by_time_of_refund: Final = attrgetter("created", "refund_id")


class Refund(msgspec.Struct, frozen=True, gc=False):
    """One refund, counted once: ``amount`` in minor units, ``created`` in Unix seconds."""

    refund_id: Annotated[Id, meaning("the refund's id; its event's id if that is the payment's")]
    amount: Annotated[AmountMinor, meaning("the amount refunded, in minor units")]
    currency: Annotated[Currency, meaning("ISO 4217 code")]
    created: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    event_id: Annotated[Id, meaning("its earliest event")]


class EventReference(msgspec.Struct, frozen=True, gc=False):
    """A fact's event and its place in the log of record."""

    event_id: Annotated[Id, meaning("the event's id")]
    type: Annotated[Id, meaning("the event's type", examples=sorted(FOLDED_TYPES))]
    created: Annotated[UnixSeconds, meaning("when the event was created")]
    partition: Annotated[Position, meaning("the counted record's partition of `plexy.webhooks`")]
    offset: Annotated[Position, meaning("that record's offset in the partition")]


class PaymentDocument(msgspec.Struct, frozen=True, gc=False):
    """The state that a payment's facts produce, as people and programs downstream see it.

    ``amount`` and ``currency`` are those of the earliest success, null without a success. Lists are
    sorted, so that equal states have equal documents.
    """

    payment_id: Annotated[Id, meaning("the payment's id")]
    status: Annotated[PaymentStatus, meaning("`unknown` if only refunds named the payment")]
    amount: Annotated[AmountMinor | None, meaning("paid, in minor units; null unless it succeeded")]
    currency: Annotated[Currency | None, meaning("ISO 4217 code; null unless it succeeded")]
    created: Annotated[
        UnixSeconds, meaning("when its earliest success, else its earliest event, was created")
    ]
    refunds: Annotated[
        tuple[Refund, ...], meaning("each refund once, by the time of its earliest event")
    ]
    events: Annotated[
        tuple[EventReference, ...], meaning("the events of its facts, by time", **NOT_EMPTY)
    ]
    anomalies: Annotated[
        tuple[str, ...], meaning("names of the payment's anomalies, sorted", **ANOMALIES)
    ]


class PlacedPayment(PaymentDocument, frozen=True, gc=False):
    """A payment's document, with the payment's order and its number of facts as ``version``."""

    order_id: str
    version: int


class Payment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payment's state: the facts that it keeps, by event id.

    The facts decide which entries stand in the journal: see ``Standing``. ``first_aside`` is the
    key of the first fact that was set aside, ``None`` if every fact is kept.
    """

    payment_id: str
    facts: Mapping[str, Event] = {}
    first_aside: FactKey | None = None

    @property
    def version(self) -> int:
        """The number of kept facts; ``Snapshot`` defines which of two states is later."""
        return len(self.facts)

    @property
    def order_id(self) -> str:
        """The order that the payment belongs to; see ``Standing``."""
        return Standing(self).order_id


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message to an order about one payment; ``payment`` is ``None`` once that has moved away.

    The later snapshot of a payment replaces the earlier one. Until a fact is set aside, every
    change of the payment raises ``version``. After that, a change either lowers ``first_aside``, or
    leaves it unchanged and raises ``version``. So each change makes the snapshot later.
    """

    order_id: str
    payment_id: str
    version: int
    payment: PaymentDocument | None
    first_aside: FactKey | None = None

    def is_newer_than(self, held: "Snapshot | None") -> bool:
        """Return whether this snapshot is later than ``held``."""
        if held is None:
            return True
        if self.first_aside == held.first_aside:
            return self.version > held.version
        if held.first_aside is None:
            return True
        return self.first_aside is not None and self.first_aside < held.first_aside


class FoldedPayments(msgspec.Struct):
    """The result of folding events: the payments that changed, and the records to publish.

    ``reused`` are events that contradict an earlier fact with the same id. Deduplication lets them
    pass once it has forgotten the id; the earlier fact counts. ``aside`` are the facts that are set
    aside.
    """

    payments: dict[str, Payment]
    snapshots: list[Snapshot]
    entries: list[Entry]
    reused: list[Event]
    aside: list[Event]


def fold_payments(events: Iterable[Event], known: Mapping[str, Payment]) -> FoldedPayments:
    """Fold events into their payments; ``known`` holds the payments' earlier states.

    Entries are created for one event at a time, and an order to which a payment belonged only for a
    moment also gets a snapshot. So if the events are folded again after a crash, the same records
    are published however the events are cut into chunks.
    """
    entries: list[Entry] = []
    reused: list[Event] = []
    at_work: dict[str, PaymentFold] = {}
    for event in events:
        payment_id = event.payment_id
        folding = at_work.get(payment_id)
        if folding is None:
            folding = at_work[payment_id] = PaymentFold(payment_id, known.get(payment_id))
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


def payment_of(payment_id: str, facts: Mapping[str, Event]) -> Payment:
    """Return the payment after all these facts have been folded."""
    return Payment(payment_id, *kept_of(facts))


def describe(payment: Payment) -> PaymentDocument:
    """Return the document of a payment."""
    facts = sorted(payment.facts.values(), key=_by_time)
    successes = [fact for fact in facts if fact.type == PAYMENT_SUCCEEDED]
    success = successes[0] if successes else None
    refunds, conflict = _refunds(payment.payment_id, facts)
    events = [
        EventReference(fact.event_id, fact.type, fact.created, fact.partition, fact.offset)
        for fact in facts
    ]
    return PaymentDocument(
        payment_id=payment.payment_id,
        status=_status(facts, success),
        amount=success.moved.amount_minor if success else None,
        currency=success.moved.currency if success else None,
        created=(success or facts[0]).created,
        refunds=tuple(sorted(refunds, key=_by_time_of_refund)) if refunds else (),
        events=tuple(events),
        anomalies=_anomalies(payment, facts, successes, refunds, conflict=conflict),
    )


def describe_placed(payment: Payment) -> PlacedPayment:
    """Return the document of a payment with its order."""
    document = msgspec.structs.asdict(describe(payment))
    return PlacedPayment(**document, order_id=payment.order_id, version=payment.version)


def subject_of(payment_id: str, fact: Event) -> Subject | None:
    """Return the subject of a fact's entries; ``None`` for a failure, which posts no entry."""
    if fact.type == PAYMENT_FAILED:
        return None
    return Subject(
        payment_id, None if fact.type == PAYMENT_SUCCEEDED else _refund_id(payment_id, fact)
    )


class Standing:
    """The standing facts of a payment: always the earliest, for any order of arrival.

    ``facts`` has the standing fact of the success and of each refund. ``order_id`` is the order
    reference of the earliest fact that has one, or the payment's own id.
    """

    __slots__ = ("_carrier", "_payment_id", "facts", "names_several")

    def __init__(self, payment: Payment) -> None:
        self.facts: dict[Subject, Event] = {}
        self.names_several = False
        self._payment_id = payment.payment_id
        self._carrier: Event | None = None
        for fact in payment.facts.values():
            self.add(fact)

    @property
    def order_id(self) -> str:
        """The order that the payment belongs to."""
        return (self._carrier.order_reference if self._carrier else None) or self._payment_id

    def add(self, fact: Event) -> tuple[Subject | None, Event | None]:
        """Take a fact into account; return its subject, and the subject's former standing fact."""
        if fact.order_reference is not None:
            carrier = self._carrier
            if carrier is not None and carrier.order_reference != fact.order_reference:
                self.names_several = True
            self._carrier = _earlier(carrier, fact)
        subject = subject_of(self._payment_id, fact)
        if subject is None:
            return None, None
        before = self.facts.get(subject)
        self.facts[subject] = _earlier(before, fact)
        return subject, before

    def remove(self, fact: Event) -> Subject | None:
        """Forget the latest fact; return its subject if it was the subject's standing fact.

        No other fact takes its place, because an earlier fact would already stand.
        """
        if self._carrier is fact:
            self._carrier = None
        subject = subject_of(self._payment_id, fact)
        if subject is None or self.facts.get(subject) is not fact:
            return None
        del self.facts[subject]
        return subject


class PaymentFold:
    """A payment while new facts are folded into it.

    The constructor reads every fact once, so adding a fact costs no more in a large payment.
    """

    def __init__(self, payment_id: str, before: Payment | None) -> None:
        # The copy leaves the earlier state unchanged.
        facts = dict(before.facts) if before else {}
        self.payment_id = payment_id
        self.facts = facts
        self.first_aside = before.first_aside if before else None
        self.changed = False
        self.aside: list[Event] = []
        self._kept: KeptFacts | None = None
        self._visited: list[str] = []
        self._standing = Standing(self.payment)

    @property
    def payment(self) -> Payment:
        """The payment in its current state."""
        return Payment(self.payment_id, self.facts, self.first_aside)

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
        """Yield a snapshot for the payment's order, and for every other order that may list it.

        The others are the payment's former orders, and all orders that its facts name. So an order
        knows every payment that ever named it, for any order of arrival.
        """
        payment_id, version, first_aside = self.payment_id, len(self.facts), self.first_aside
        for order_id in self._others() if self._visited else ():
            yield Snapshot(order_id, payment_id, version, None, first_aside)
        document = describe(self.payment)
        yield Snapshot(self._standing.order_id, payment_id, version, document, first_aside)

    def _others(self) -> list[str]:
        others = set(self._visited)
        if self._standing.names_several:
            references = (fact.order_reference for fact in self.facts.values())
            others.update(each for each in references if each is not None)
        return sorted(others - {self._standing.order_id})

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
            subject = self._standing.remove(fact)
            if subject is not None:
                entries.append(reversal_of(subject, fact))
        return entries

    def _post(self, event: Event) -> list[Entry]:
        subject, before = self._standing.add(event)
        return [] if subject is None else post(subject, _earlier(before, event), before)


def _says_the_same(fact: Event, event: Event) -> bool:
    """Return whether two events are equal, except for their places in the log.

    The arrivals decide which time is implausible, so such a time is not compared.
    """
    again = msgspec.structs.replace(event, partition=fact.partition, offset=fact.offset)
    if TIME_IMPLAUSIBLE in {*fact.marks, *event.marks}:
        again = msgspec.structs.replace(again, created=fact.created, marks=fact.marks)
    return again == fact


def _earlier(one: Event | None, other: Event) -> Event:
    return one if one is not None and _by_time(one) <= _by_time(other) else other


def _status(facts: list[Event], success: Event | None) -> PaymentStatus:
    if success:
        return "succeeded"
    return "failed" if any(fact.type == PAYMENT_FAILED for fact in facts) else "unknown"


def _refund_id(payment_id: str, fact: Event) -> str:
    """Return a refund's own id, or its event's id if the refund has the payment's id."""
    return fact.data_id if fact.data_id != payment_id else fact.event_id


def _refunds(payment_id: str, facts: list[Event]) -> tuple[list[Refund], bool]:
    """Return each refund by its earliest fact, and whether a later fact of a refund contradicts it.

    ``facts`` are sorted by time.
    """
    refunds: dict[str, Refund] = {}
    conflict = False
    for fact in facts:
        if fact.type == REFUND_SUCCEEDED:
            refund_id = _refund_id(payment_id, fact)
            amount, currency = fact.moved.amount_minor, fact.moved.currency
            first = refunds.get(refund_id)
            if first is None:
                refunds[refund_id] = Refund(
                    refund_id, amount, currency, fact.created, fact.event_id
                )
            elif (first.amount, first.currency) != (amount, currency):
                conflict = True
    return list(refunds.values()), conflict


def _anomalies(
    payment: Payment,
    facts: list[Event],
    successes: list[Event],
    refunds: list[Refund],
    *,
    conflict: bool,
) -> tuple[str, ...]:
    """Return the names of the payment's anomalies, sorted."""
    if len(facts) == 1 and not refunds:
        # Nearly every payment has one fact, which contradicts no other fact.
        return facts[0].marks
    names: set[str] = {mark for fact in facts for mark in fact.marks}
    names.update(_contradictions(payment, facts, successes))
    if conflict:
        names.add("conflicting_refund")
    if sum(refund.refund_id == refund.event_id for refund in refunds) > 1:
        names.add("refund_identity_uncertain")
    if refunds and not successes:
        names.add("refund_without_payment")
    if refunds and successes:
        names.update(_excess(successes[0], refunds))
    return tuple(sorted(names))


def _contradictions(
    payment: Payment, facts: list[Event], successes: list[Event]
) -> Iterator[Anomaly]:
    """Yield the anomalies of attempts and references; facts are sorted by time."""
    if payment.first_aside is not None:
        yield TOO_LARGE
    if len({fact.money for fact in successes}) > 1:
        yield "conflicting_amount"
    if len({ref for fact in facts if (ref := fact.order_reference) is not None}) > 1:
        yield "conflicting_order"
    paid_at = successes[0].created if successes else None
    if paid_at is not None and any(
        fact.type == PAYMENT_FAILED and fact.created > paid_at for fact in facts
    ):
        yield "failed_after_success"


def _excess(success: Event, refunds: list[Refund]) -> Iterable[Anomaly]:
    paid = success.moved
    in_currency = [refund.amount for refund in refunds if refund.currency == paid.currency]
    if len(in_currency) != len(refunds):
        yield "currency_mismatch"
    if sum(in_currency) > paid.amount_minor:
        yield "refund_exceeds_payment"
