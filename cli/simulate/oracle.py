"""What must come of what was sent: a plain sum over bodies, an opinion beside the ledger's own.

In: bodies as they were sent, in any order, any of them several times. Out: each order as the views
must show it. Never: a line of ``ledger``, whose mistakes this is to find (import-linter holds it);
so it is written from the rules alone, and for plainness, not for speed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

ORDER_FIELDS: Final = ("merchantReference", "orderReference", "order_id", "orderId", "order")
PAYMENT_FIELDS: Final = ("payment_id", "paymentId", "payment", "originalReference")

_SUCCESS: Final = "payment.succeeded"
_FAILURE: Final = "payment.failed"
_REFUND: Final = "refund.succeeded"


class Refund(msgspec.Struct, frozen=True):
    """One refund; the names of all fields here are those of the views' documents."""

    refund_id: str
    amount: int
    currency: str
    created: int


class Payment(msgspec.Struct, frozen=True):
    """One payment; ``amount`` and ``currency`` are of the earliest success."""

    payment_id: str
    status: str
    amount: int | None
    currency: str | None
    refunds: tuple[Refund, ...]


class Totals(msgspec.Struct, frozen=True):
    """One currency's sums, in minor units."""

    paid: int
    refunded: int
    net: int


class Order(msgspec.Struct, frozen=True):
    """What of an order's document is foretold; ``version`` is the number of its facts."""

    status: str
    version: int
    totals: dict[str, Totals]
    payments: tuple[Payment, ...]


class _Fact(msgspec.Struct, frozen=True, order=True):
    """One event that counts; sorted by time, then by event id."""

    created: int
    event_id: str
    kind: str
    data_id: str
    amount: int
    currency: str
    order: str | None


_Facts = Mapping[str, list[_Fact]]


def orders(bodies: Iterable[bytes]) -> dict[str, Order | None]:
    """Return every order that the bodies name; ``None`` where all its payments belong elsewhere.

    A refund may be known before its payment, and a payment before the event that places it: an
    order that was there for a while must be gone in the end, so it is foretold as well.
    """
    places: dict[str, dict[str, list[_Fact]]] = {}
    for payment_id, facts in _payments(bodies).items():
        for order_id in _possible_orders(payment_id, facts):
            places.setdefault(order_id, {})
        named = [fact.order for fact in facts if fact.order]
        places[named[0] if named else payment_id][payment_id] = facts
    return {order_id: _order(payments) for order_id, payments in places.items()}


def touched(bodies: Iterable[bytes], event_ids: Iterable[str]) -> set[str]:
    """Return the orders whose state depends on whether these events, among the bodies, count."""
    asked = set(event_ids)
    return {
        order_id
        for payment_id, facts in _payments(bodies).items()
        if any(fact.event_id in asked for fact in facts)
        for order_id in _possible_orders(payment_id, facts)
    }


def trial_totals(some: Iterable[Order | None]) -> dict[str, Totals]:
    """Sum orders, currency by currency."""
    paid: dict[str, int] = defaultdict(int)
    refunded: dict[str, int] = defaultdict(int)
    for order in some:
        for currency, totals in order.totals.items() if order else ():
            paid[currency] += totals.paid
            refunded[currency] += totals.refunded
    return {c: Totals(paid[c], refunded[c], paid[c] - refunded[c]) for c in sorted(paid)}


def _payments(bodies: Iterable[bytes]) -> _Facts:
    """Return the facts under each payment id, each once, by time."""
    facts: dict[str, dict[str, _Fact]] = {}
    for body in bodies:
        event = json.loads(body)
        if event["type"] not in {_SUCCESS, _FAILURE, _REFUND}:
            continue
        data = event["data"]
        payment_id = data["id"]
        if event["type"] == _REFUND:
            payment_id = _first(data, PAYMENT_FIELDS) or payment_id
        facts.setdefault(payment_id, {})[event["id"]] = _fact(event)
    return {payment_id: sorted(each.values()) for payment_id, each in facts.items()}


def _fact(event: Mapping[str, Any]) -> _Fact:
    data = event["data"]
    return _Fact(
        created=event["created"],
        event_id=event["id"],
        kind=event["type"],
        data_id=data["id"],
        amount=data["amount"],
        currency=data["currency"],
        order=_first(data, ORDER_FIELDS) or _first(data.get("metadata", {}), ORDER_FIELDS),
    )


def _first(holder: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return what stands under the first name that says something; it may be a number."""
    return next((str(holder[name]) for name in names if holder.get(name, "") != ""), None)


def _possible_orders(payment_id: str, facts: list[_Fact]) -> set[str]:
    """Return the orders that the payment may pass through, whichever facts come first."""
    return {fact.order or payment_id for fact in facts}


def _order(payments: _Facts) -> Order | None:
    if not payments:
        return None
    listed = tuple(_payment(payment_id, facts) for payment_id, facts in sorted(payments.items()))
    totals = _totals(listed)
    return Order(
        status=_status(listed, totals),
        version=sum(len(facts) for facts in payments.values()),
        totals=totals,
        payments=listed,
    )


def _payment(payment_id: str, facts: list[_Fact]) -> Payment:
    successes = [fact for fact in facts if fact.kind == _SUCCESS]
    failed = any(fact.kind == _FAILURE for fact in facts)
    refunds: dict[str, Refund] = {}
    for fact in facts:
        if fact.kind == _REFUND:
            refund_id = fact.event_id if fact.data_id == payment_id else fact.data_id
            refund = Refund(refund_id, fact.amount, fact.currency, fact.created)
            refunds.setdefault(refund_id, refund)
    return Payment(
        payment_id=payment_id,
        status="succeeded" if successes else "failed" if failed else "unknown",
        amount=successes[0].amount if successes else None,
        currency=successes[0].currency if successes else None,
        refunds=tuple(sorted(refunds.values(), key=lambda each: (each.created, each.refund_id))),
    )


def _totals(payments: Iterable[Payment]) -> dict[str, Totals]:
    paid: dict[str, int] = defaultdict(int)
    refunded: dict[str, int] = defaultdict(int)
    for payment in payments:
        if payment.amount is not None and payment.currency is not None:
            paid[payment.currency] += payment.amount
        for refund in payment.refunds:
            refunded[refund.currency] += refund.amount
    currencies = sorted({*paid, *refunded})
    return {c: Totals(paid[c], refunded[c], paid[c] - refunded[c]) for c in currencies}


def _status(payments: Iterable[Payment], totals: Mapping[str, Totals]) -> str:
    """Return the first that holds."""
    succeeded = any(payment.status == "succeeded" for payment in payments)
    refunded = any(each.refunded > 0 for each in totals.values())
    if any(each.refunded > each.paid for each in totals.values()):
        return "over_refunded"
    if succeeded and refunded and all(each.refunded == each.paid for each in totals.values()):
        return "refunded"
    if refunded:
        return "partially_refunded"
    return "paid" if succeeded else "failed"
