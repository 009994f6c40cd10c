"""Orders: an order is its payments' snapshots, and what follows from them.

In: snapshots of payments, in any order, any number of times. Out: the order's state and document.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from ledger.payments import ANOMALIES, PaymentDocument, Snapshot
from ledger.published import BY_CURRENCY, NOT_EMPTY, Count, Id, SumMinor, UnixSeconds, meaning

OrderStatus = Literal["over_refunded", "refunded", "partially_refunded", "paid", "failed"]


class Totals(msgspec.Struct, frozen=True, gc=False):
    """One currency's sums, in minor units; ``net`` is ``paid - refunded``."""

    paid: Annotated[SumMinor, meaning("amounts of the payments that succeeded, in minor units")]
    refunded: Annotated[SumMinor, meaning("amounts of the refunds, in minor units")]
    net: Annotated[int, meaning("paid - refunded, in minor units; negative if over-refunded")]


class OrderDocument(msgspec.Struct, frozen=True, gc=False):
    """An order as people and programs downstream see it; times are in Unix seconds.

    ``version`` is how many distinct facts it rests on. Lists and totals are sorted, so that equal
    states are equal documents.
    """

    order_id: Annotated[
        Id, meaning("the shop's reference; a payment's own id where none was ever named")
    ]
    status: Annotated[
        OrderStatus,
        meaning(
            "the first that holds of over_refunded (in some currency more refunded than paid), "
            "refunded, partially_refunded, paid, failed"
        ),
    ]
    version: Annotated[
        Count,
        meaning(
            "how many distinct facts the order rests on; it goes back when a payment moves away"
        ),
    ]
    totals: Annotated[
        dict[str, Totals],
        meaning("sums by ISO 4217 code, sorted; none where nothing was paid", **BY_CURRENCY),
    ]
    payments: Annotated[
        tuple[PaymentDocument, ...], meaning("the order's payments, by payment_id", **NOT_EMPTY)
    ]
    anomalies: Annotated[
        tuple[str, ...], meaning("the names of all its payments' anomalies, sorted", **ANOMALIES)
    ]
    first_event: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    last_event: Annotated[UnixSeconds, meaning("when its latest event was created")]


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An order's state: the latest snapshot of every payment that ever named it.

    A payment that moved to another order stays as a withdrawn snapshot: an older one that comes
    again after a crash must not bring it back.
    """

    order_id: str
    payments: dict[str, Snapshot] = {}

    @property
    def version(self) -> int:
        """How many distinct facts it rests on: its document's version, 0 without a document."""
        return sum(len(held.payment.events) for held in self.payments.values() if held.payment)


def fold_orders(snapshots: Iterable[Snapshot], known: Mapping[str, Order]) -> dict[str, Order]:
    """Return the orders that changed; ``known`` are their states before."""
    changed: dict[str, Order] = {}
    for snapshot in snapshots:
        order_id = snapshot.order_id
        order = changed.get(order_id) or known.get(order_id) or Order(order_id)
        if snapshot.is_newer_than(order.payments.get(snapshot.payment_id)):
            if order_id not in changed:
                # A dict of its own: the state before stays as it was.
                order = changed[order_id] = Order(order_id, dict(order.payments))
            order.payments[snapshot.payment_id] = snapshot
    return changed


def new_anomalies(document: OrderDocument, before: Order | None) -> set[str]:
    """Return the anomalies that an order's document has now, and had not before."""
    if not document.anomalies:
        return set()
    return set(document.anomalies) - anomalies_of(before)


def anomalies_of(order: Order | None) -> set[str]:
    """Return the names of what does not fit together in an order's payments."""
    payments = order.payments.values() if order else ()
    return {name for each in payments if each.payment for name in each.payment.anomalies}


def last_event_of(order: Order) -> int:
    """Return when the latest event of an order's payments was created, in Unix seconds."""
    return max(_times(order), default=0)


def describe(order: Order) -> OrderDocument | None:
    """Return what follows from the order's payments; ``None`` if all of them have moved away."""
    payments = [held.payment for _, held in sorted(order.payments.items()) if held.payment]
    if not payments:
        return None
    totals = _totals(payments)
    times = _times(order)
    return OrderDocument(
        order_id=order.order_id,
        status=_status(payments, totals.values()),
        version=len(times),
        totals=totals,
        payments=tuple(payments),
        anomalies=tuple(sorted(anomalies_of(order))),
        first_event=min(times),
        last_event=max(times),
    )


def _times(order: Order) -> list[int]:
    payments = [held.payment for held in order.payments.values() if held.payment]
    return [event.created for payment in payments for event in payment.events]


def _totals(payments: Iterable[PaymentDocument]) -> dict[str, Totals]:
    sums: dict[str, list[int]] = {}
    for payment in payments:
        if payment.amount is not None and payment.currency is not None:
            sums.setdefault(payment.currency, [0, 0])[0] += payment.amount
        for refund in payment.refunds:
            sums.setdefault(refund.currency, [0, 0])[1] += refund.amount
    return {
        currency: Totals(paid, refunded, paid - refunded)
        for currency, (paid, refunded) in sorted(sums.items())
    }


def _status(payments: Iterable[PaymentDocument], totals: Iterable[Totals]) -> OrderStatus:
    is_refunded = has_net = False
    for total in totals:
        if total.net < 0:
            return "over_refunded"
        is_refunded = is_refunded or total.refunded > 0
        has_net = has_net or total.net > 0
    succeeded = "succeeded" in [payment.status for payment in payments]
    if is_refunded:
        return "partially_refunded" if has_net or not succeeded else "refunded"
    return "paid" if succeeded else "failed"
