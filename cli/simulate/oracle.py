"""The oracle: predicts each order from the sent bodies, independently of the ledger's own code.

The bodies may arrive in any order, and more than once. The result is each order as the views must
show it. To find mistakes in ``ledger``, the oracle shares no code with it, which import-linter
enforces. The oracle is written from the rules alone, to be plain rather than fast.
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


class CheckedRefund(msgspec.Struct, frozen=True):
    """One refund; the fields of all classes here have the names in the views' documents."""

    refund_id: str
    amount: int
    currency: str
    created: int


class CheckedPayment(msgspec.Struct, frozen=True):
    """One payment; ``amount`` and ``currency`` are those of the earliest success."""

    payment_id: str
    status: str
    amount: int | None
    currency: str | None
    refunds: tuple[CheckedRefund, ...]


class CheckedTotals(msgspec.Struct, frozen=True):
    """One currency's sums, in minor units."""

    paid: int
    refunded: int
    net: int


class CheckedOrder(msgspec.Struct, frozen=True):
    """The predicted part of an order's document; ``version`` is the number of its facts."""

    status: str
    version: int
    totals: dict[str, CheckedTotals]
    payments: tuple[CheckedPayment, ...]


class _Fact(msgspec.Struct, frozen=True, order=True):
    """One event that counts; facts sort by time, then by event id."""

    created: int
    event_id: str
    kind: str
    data_id: str
    amount: int
    currency: str
    order: str | None


_Facts = Mapping[str, list[_Fact]]


def orders(bodies: Iterable[bytes]) -> dict[str, CheckedOrder | None]:
    """Return every order that the bodies name; ``None`` if all its payments belong elsewhere.

    A refund may arrive before its payment, and a payment before the event that names its order. So
    a wrong order may exist for a while; ``None`` means that it must not exist in the end.
    """
    places: dict[str, dict[str, list[_Fact]]] = {}
    for payment_id, facts in _payments(bodies).items():
        for order_id in _possible_orders(payment_id, facts):
            places.setdefault(order_id, {})
        named = [fact.order for fact in facts if fact.order]
        places[named[0] if named else payment_id][payment_id] = facts
    return {order_id: _order(payments) for order_id, payments in places.items()}


def touched(bodies: Iterable[bytes], event_ids: Iterable[str]) -> set[str]:
    """Return the orders whose state depends on whether these events among the bodies count."""
    doubtful = set(event_ids)
    return {
        order_id
        for payment_id, facts in _payments(bodies).items()
        if any(fact.event_id in doubtful for fact in facts)
        for order_id in _possible_orders(payment_id, facts)
    }


def trial_totals(listed: Iterable[CheckedOrder | None]) -> dict[str, CheckedTotals]:
    """Return the totals of orders, by currency."""
    paid: dict[str, int] = defaultdict(int)
    refunded: dict[str, int] = defaultdict(int)
    for order in listed:
        for currency, totals in order.totals.items() if order else ():
            paid[currency] += totals.paid
            refunded[currency] += totals.refunded
    return {c: CheckedTotals(paid[c], refunded[c], paid[c] - refunded[c]) for c in sorted(paid)}


def _payments(bodies: Iterable[bytes]) -> _Facts:
    """Return the facts of each payment id, each once, sorted by time."""
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
    """Return the first value that is not empty, as text; the value may be a number."""
    return next((str(holder[name]) for name in names if holder.get(name, "") != ""), None)


def _possible_orders(payment_id: str, facts: list[_Fact]) -> set[str]:
    """Return the orders that may contain the payment, depending on which facts arrive first."""
    return {fact.order or payment_id for fact in facts}


def _order(payments: _Facts) -> CheckedOrder | None:
    if not payments:
        return None
    listed = tuple(_payment(payment_id, facts) for payment_id, facts in sorted(payments.items()))
    totals = _totals(listed)
    return CheckedOrder(
        status=_status(listed, totals),
        version=sum(len(facts) for facts in payments.values()),
        totals=totals,
        payments=listed,
    )


def _payment(payment_id: str, facts: list[_Fact]) -> CheckedPayment:
    successes = [fact for fact in facts if fact.kind == _SUCCESS]
    failed = any(fact.kind == _FAILURE for fact in facts)
    refunds: dict[str, CheckedRefund] = {}
    for fact in facts:
        if fact.kind == _REFUND:
            refund_id = fact.event_id if fact.data_id == payment_id else fact.data_id
            refund = CheckedRefund(refund_id, fact.amount, fact.currency, fact.created)
            refunds.setdefault(refund_id, refund)
    return CheckedPayment(
        payment_id=payment_id,
        status="succeeded" if successes else "failed" if failed else "unknown",
        amount=successes[0].amount if successes else None,
        currency=successes[0].currency if successes else None,
        refunds=tuple(sorted(refunds.values(), key=lambda each: (each.created, each.refund_id))),
    )


def _totals(payments: Iterable[CheckedPayment]) -> dict[str, CheckedTotals]:
    paid: dict[str, int] = defaultdict(int)
    refunded: dict[str, int] = defaultdict(int)
    for payment in payments:
        if payment.amount is not None and payment.currency is not None:
            paid[payment.currency] += payment.amount
        for refund in payment.refunds:
            refunded[refund.currency] += refund.amount
    currencies = sorted({*paid, *refunded})
    return {c: CheckedTotals(paid[c], refunded[c], paid[c] - refunded[c]) for c in currencies}


def _status(payments: Iterable[CheckedPayment], totals: Mapping[str, CheckedTotals]) -> str:
    """Return the first status that applies."""
    succeeded = any(payment.status == "succeeded" for payment in payments)
    refunded = any(each.refunded > 0 for each in totals.values())
    if any(each.refunded > each.paid for each in totals.values()):
        return "over_refunded"
    if succeeded and refunded and all(each.refunded == each.paid for each in totals.values()):
        return "refunded"
    if refunded:
        return "partially_refunded"
    return "paid" if succeeded else "failed"
