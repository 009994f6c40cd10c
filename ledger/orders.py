"""Orders: the snapshots of an order's payments, and the order's document.

Input: snapshots of payments, in any sequence, each any number of times. Output: the order's state
and its document. If an order's payments are larger than ``MOST_PAYMENT_BYTES``, its document is a
summary.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ledger.notes import MOST_NOTES, Note, key_of
from ledger.payment_documents import ANOMALIES, PaymentDocument
from ledger.payments import Snapshot, note_anomalies
from ledger.published import BY_CURRENCY, Count, Id, Position, SumMinor, UnixSeconds, meaning

MOST_PAYMENT_BYTES: Final = 256 * 1024
"""The maximum size, as JSON, of the payments in a document that lists all of them."""

# A document has at most three ids for an event, and one more for a payment. An id has at most 512
# bytes, and JSON writes a byte as at most six bytes. So payments that have 16 events in total
# always fit.
_ALWAYS_FIT_EVENTS: Final = 16

OrderStatus = Literal[
    "over_refunded",
    "disputed",
    "charged_back",
    "refunded",
    "partially_refunded",
    "paid",
    "authorised",
    "voided",
    "failed",
    "unknown",
]

_BY_PAYMENT: Final[tuple[tuple[str, OrderStatus], ...]] = (
    ("succeeded", "paid"),
    ("authorised", "authorised"),
    ("voided", "voided"),
)

_ENCODER: Final = msgspec.json.Encoder()
_payment_id: Final = attrgetter("payment_id")


class Totals(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One currency's sums, in minor units; ``net`` is the balance of ``assets:plexy``."""

    paid: Annotated[SumMinor, meaning("amounts of the payments that succeeded, in minor units")]
    refunded: Annotated[SumMinor, meaning("amounts of the refunds, in minor units")]
    net: Annotated[
        int,
        meaning(
            "paid - refunded - disputed - charged_back, in minor units; negative if over-refunded"
        ),
    ]
    disputed: Annotated[SumMinor, meaning("amounts of open disputes, if any, in minor units")] = 0
    charged_back: Annotated[
        SumMinor, meaning("amounts of lost disputes, if any, in minor units")
    ] = 0


_Moved = tuple[int, int, int, int]
"""Amounts paid, refunded, disputed and charged back."""

_Sums = dict[str, tuple[int, int, int, int, int]]
"""Each currency's sums of the four amounts in ``_Moved``, and the number of summands."""


class OrderSummary(msgspec.Struct, frozen=True, gc=False):
    """Counts over all payments of an order that has too many to list."""

    payments: Annotated[Count, meaning("how many payments the order has")]
    statuses: Annotated[dict[str, Count], meaning("how many payments have each status, sorted")]
    anomalies: Annotated[dict[str, Count], meaning("how many payments have each anomaly, sorted")]


class OrderDocument(msgspec.Struct, frozen=True, gc=False):
    """An order as people and programs downstream see it; times are in Unix seconds.

    ``version`` is the number of distinct facts behind the order. Lists and totals are sorted, so
    that equal states have equal documents.
    """

    order_id: Annotated[
        Id, meaning("the shop's order reference, or a payment's id if the payment names no order")
    ]
    status: Annotated[
        OrderStatus,
        meaning(
            "the first of these that applies: over_refunded (in some currency, more is refunded "
            "than paid), disputed (a dispute is open), charged_back (a dispute is lost), refunded, "
            "partially_refunded, paid, authorised, voided, failed, unknown (only `notes` name the "
            "order)"
        ),
    ]
    version: Annotated[
        Position,
        meaning(
            "the number of distinct facts behind the order; it falls when a payment moves away"
        ),
    ]
    totals: Annotated[
        dict[str, Totals],
        meaning("sums by ISO 4217 code, sorted; empty if nothing was paid", **BY_CURRENCY),
    ]
    payments: Annotated[
        tuple[PaymentDocument, ...],
        meaning(
            "the order's payments, by payment_id; with a `summary`, only the payments of the "
            "earliest and the latest event"
        ),
    ]
    anomalies: Annotated[
        tuple[str, ...],
        meaning("names of the anomalies of the order and its payments, sorted", **ANOMALIES),
    ]
    first_event: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    last_event: Annotated[UnixSeconds, meaning("when its latest event was created")]
    summary: Annotated[
        OrderSummary | UnsetType,
        meaning(
            "present if the order has too many payments to list; every field except "
            "`payments` still covers the whole order"
        ),
    ] = UNSET
    notes: Annotated[
        tuple[Note, ...] | UnsetType,
        meaning(
            f"the first {MOST_NOTES} deliveries, by time, that name the order or its payments but "
            "do not count; absent if there are no such deliveries, or if there is a `summary`"
        ),
    ] = UNSET


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An order's state: the latest snapshot of every payment that ever named the order.

    If a payment moves to a different order, the snapshot that withdraws the payment stays in this
    order. So an older snapshot that is redelivered after a crash does not bring the payment back.
    """

    order_id: str
    payments: dict[str, Snapshot] = {}

    @property
    def version(self) -> int:
        """The number of distinct facts; an order's document has the same version."""
        return sum(len(held.payment.events) for held in self.payments.values() if held.payment)

    @property
    def last_event(self) -> int:
        """The Unix time of the latest event of the order's payments.

        If the order has no event, it is the time of the order's latest note, or 0 if there is no
        note.
        """
        return max(_times(present_in(self)) or _times_of_notes(self), default=0)

    @property
    def anomalies(self) -> set[str]:
        """The names of the anomalies of the order and its payments."""
        return _anomalies(self)


def own_anomalies(payments: int, *, is_payment: bool) -> set[str]:
    """Return the order's own anomalies; ``is_payment`` means that a payment has the order's id.

    A payment that names no order is an order under its own id. If other payments name that id as
    their order, all these payments share one order, perhaps against the shop's intention.
    """
    return {"order_id_is_payment_id"} if is_payment and payments > 1 else set()


class Tally(msgspec.Struct):
    """Counts and sums over an order's payments; ``add`` and ``take`` change them by one payment.

    ``payment_bytes`` is the length of the payments as JSON. ``own`` is 1 if a payment has the
    order's own id, else 0. ``sums`` holds the amounts paid, refunded, disputed and charged back, by
    currency. ``notes`` counts the notes that are shown.
    """

    payments: int = 0
    events: int = 0
    payment_bytes: int = 0
    own: int = 0
    statuses: dict[str, int] = {}
    anomalies: dict[str, int] = {}
    sums: _Sums = {}
    notes: int = 0

    def add(self, order_id: str, snapshot: Snapshot, sign: int = 1) -> None:
        """Add the snapshot of a payment."""
        self.notes += sign * len(snapshot.notes)
        payment = snapshot.payment
        for name in {*(payment.anomalies if payment else ()), *note_anomalies(snapshot)}:
            _count(self.anomalies, name, sign)
        if payment is not None:
            self._add(order_id, payment, sign)

    def take(self, order_id: str, snapshot: Snapshot) -> None:
        """Subtract a snapshot that was added."""
        self.add(order_id, snapshot, -1)

    def _add(self, order_id: str, payment: PaymentDocument, sign: int) -> None:
        self.payments += sign
        self.events += sign * len(payment.events)
        self.payment_bytes += sign * len(_ENCODER.encode(payment))
        self.own += sign * (payment.payment_id == order_id)
        _count(self.statuses, payment.status, sign)
        _add(self.sums, payment, sign)

    def totals(self) -> dict[str, Totals]:
        """Return the sums of each currency."""
        return _totals(self.sums)

    def status(self) -> OrderStatus:
        """Return the order's status."""
        return _status(self.totals().values(), self.statuses)

    def anomaly_names(self) -> set[str]:
        """Return the names of the anomalies of the order and its payments."""
        return {*self.anomalies, *own_anomalies(self.payments, is_payment=bool(self.own))}


Moment = tuple[int, str]
"""The time of an event, and the id of its payment."""


def fold_orders(snapshots: Iterable[Snapshot], known: Mapping[str, Order]) -> dict[str, Order]:
    """Return the orders that changed; ``known`` holds the orders' earlier states."""
    changed: dict[str, Order] = {}
    for snapshot in snapshots:
        order_id = snapshot.order_id
        order = changed.get(order_id) or known.get(order_id) or Order(order_id)
        if snapshot.is_newer_than(order.payments.get(snapshot.payment_id)):
            if order_id not in changed:
                # The copy leaves the earlier state unchanged.
                order = changed[order_id] = Order(order_id, dict(order.payments))
            order.payments[snapshot.payment_id] = snapshot
    return changed


def describe(order: Order) -> OrderDocument | None:
    """Return the order's document; ``None`` if no payment and no note is left in the order."""
    # Nearly every order has so few events that its payments always fit, so their size is not
    # computed.
    whole = describe_whole(order)
    if whole is None or whole.version <= _ALWAYS_FIT_EVENTS:
        return whole
    tally = tally_of(order.order_id, order.payments.values())
    if tally.payment_bytes <= MOST_PAYMENT_BYTES:
        return whole
    moments = [(time, each.payment_id) for each in whole.payments for time in _times([each])]
    by_id = {each.payment_id: each for each in whole.payments}
    return summarise(order.order_id, tally, by_id.get, min(moments), max(moments))


def describe_whole(order: Order) -> OrderDocument | None:
    """Return the order's document with all payments, even if ``describe`` returns a summary."""
    payments, notes = present_in(order), notes_of(order)
    if not payments and not notes:
        return None
    if len(payments) > 1:
        payments.sort(key=_payment_id)
    sums: _Sums = {}
    for payment in payments:
        _add(sums, payment, 1)
    totals = _totals(sums)
    times = _times(payments)
    moments = times or _times_of_notes(order)
    return OrderDocument(
        order_id=order.order_id,
        status=_status(totals.values(), {each.status for each in payments}),
        version=len(times),
        totals=totals,
        payments=tuple(payments),
        anomalies=tuple(sorted(_anomalies(order))),
        first_event=min(moments),
        last_event=max(moments),
        notes=notes[:MOST_NOTES] or UNSET,
    )


def summarise(
    order_id: str,
    tally: Tally,
    payment: Callable[[str], PaymentDocument | None],
    first: Moment,
    last: Moment,
) -> OrderDocument:
    """Return the document of an order that has too many payments to list.

    ``payment`` returns a payment by its id; ``first`` and ``last`` are the order's earliest and
    latest event.
    """
    shown = [payment(each) for each in sorted({first[1], last[1]})]
    return OrderDocument(
        order_id=order_id,
        status=tally.status(),
        version=tally.events,
        totals=tally.totals(),
        payments=tuple(each for each in shown if each is not None),
        anomalies=tuple(sorted(tally.anomaly_names())),
        first_event=first[0],
        last_event=last[0],
        summary=OrderSummary(
            tally.payments,
            dict(sorted(tally.statuses.items())),
            dict(sorted(tally.anomalies.items())),
        ),
    )


def tally_of(order_id: str, snapshots: Iterable[Snapshot]) -> Tally:
    """Return the tally of the snapshots of payments."""
    tally = Tally()
    for snapshot in snapshots:
        tally.add(order_id, snapshot)
    return tally


def present_in(order: Order) -> list[PaymentDocument]:
    """Return the payments that have not moved away."""
    return [held.payment for held in order.payments.values() if held.payment]


def notes_of(order: Order) -> tuple[Note, ...]:
    """Return the notes that an order shows, sorted by time."""
    notes = [note for held in order.payments.values() if held.notes for note in held.notes]
    return tuple(sorted(notes, key=key_of)) if notes else ()


def _anomalies(order: Order) -> set[str]:
    # Nearly every order has one payment without an anomaly, so no list is made of the payments.
    names: set[str] = set()
    present = 0
    for held in order.payments.values():
        if held.payment is not None:
            present += 1
            names.update(held.payment.anomalies)
        if held.notes or held.first_left:
            names |= note_anomalies(held)
    if present > 1 and order.order_id in order.payments:
        is_payment = order.payments[order.order_id].payment is not None
        names |= own_anomalies(present, is_payment=is_payment)
    return names


def _times(payments: Iterable[PaymentDocument]) -> list[int]:
    return [event.created for payment in payments for event in payment.events]


def _times_of_notes(order: Order) -> list[int]:
    return [note.created for note in notes_of(order)]


def _count(counts: dict[str, int], name: str, sign: int) -> None:
    counts[name] = counts.get(name, 0) + sign
    if not counts[name]:
        del counts[name]


def _add(sums: _Sums, payment: PaymentDocument, sign: int) -> None:
    """Add a payment's amounts to the sums, or subtract them if ``sign`` is -1."""
    if payment.captures:
        for capture in payment.captures:
            _move(sums, capture.currency, (capture.amount, 0, 0, 0), sign)
    elif payment.amount is not None and payment.currency is not None:
        if sign == 1 and payment.currency not in sums:
            # Nearly every order has one amount.
            sums[payment.currency] = (payment.amount, 0, 0, 0, 1)
        else:
            _move(sums, payment.currency, (payment.amount, 0, 0, 0), sign)
    for refund in payment.refunds:
        _move(sums, refund.currency, (0, refund.amount, 0, 0), sign)
    for dispute in payment.disputes:
        amount = dispute.amount or 0
        if dispute.currency is not None and dispute.status == "open":
            _move(sums, dispute.currency, (0, 0, amount, 0), sign)
        elif dispute.currency is not None and dispute.status == "lost":
            _move(sums, dispute.currency, (0, 0, 0, amount), sign)


def _move(sums: _Sums, currency: str, moved: _Moved, sign: int) -> None:
    """Add amounts to the sums of a currency; remove a currency that has no summand left."""
    paid, refunded, disputed, lost, count = sums.get(currency, (0, 0, 0, 0, 0))
    if count + sign == 0:
        del sums[currency]
        return
    sums[currency] = (
        paid + sign * moved[0],
        refunded + sign * moved[1],
        disputed + sign * moved[2],
        lost + sign * moved[3],
        count + sign,
    )


def _totals(sums: _Sums) -> dict[str, Totals]:
    return {
        currency: Totals(paid, refunded, paid - refunded - disputed - lost, disputed, lost)
        for currency, (paid, refunded, disputed, lost, _) in (
            sorted(sums.items()) if len(sums) > 1 else sums.items()
        )
    }


def _status(totals: Iterable[Totals], statuses: Collection[str]) -> OrderStatus:
    """Return the first status that applies, in the sequence of ``OrderStatus``."""
    is_refunded = has_rest = False
    for total in totals:
        if total.refunded > total.paid:
            return "over_refunded"
        is_refunded = is_refunded or total.refunded > 0
        has_rest = has_rest or total.paid > total.refunded
    if "disputed" in statuses:
        return "disputed"
    if "charged_back" in statuses:
        return "charged_back"
    if is_refunded:
        return "partially_refunded" if has_rest or "succeeded" not in statuses else "refunded"
    for status, shown in _BY_PAYMENT:
        if status in statuses:
            return shown
    return "failed" if statuses else "unknown"
