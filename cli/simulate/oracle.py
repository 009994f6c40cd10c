"""The oracle: predicts each order from the sent bodies, independently of the ledger's own code.

The bodies may arrive in any sequence, and more than once. The result is each order as the views
must show the order. The oracle shares no code with ``ledger``, so that it can find mistakes in
``ledger``; import-linter enforces this separation. The oracle's code follows only the written
rules, and is simple rather than fast.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

ORDER_FIELDS: Final = ("merchantReference", "orderReference", "order_id", "orderId", "order")
PAYMENT_FIELDS: Final = ("payment_id", "paymentId", "payment", "originalReference")

_SUCCESS: Final = "payment.succeeded"
_FAILURE: Final = "payment.failed"
_REFUND: Final = "refund.succeeded"
_AUTHORISED: Final = "payment.authorized"
_CAPTURE: Final = "payment.captured"
_VOID: Final = "payment.voided"
_REVERSAL: Final = "refund.failed"
_DISPUTE: Final = "dispute.opened"
_WON: Final = "dispute.won"
_LOST: Final = "dispute.lost"

_SEED_TYPES: Final = {_SUCCESS: _SUCCESS, _FAILURE: _FAILURE, _REFUND: _REFUND}
_TYPES: Final = {
    "seed": _SEED_TYPES,
    "lifecycle": {
        **{each: each for each in (_AUTHORISED, _CAPTURE, _VOID, _REVERSAL, _DISPUTE, _WON, _LOST)},
        **_SEED_TYPES,
        "dispute.created": _DISPUTE,
    },
}
"""The event types that count, for each rule set.

An event whose type is a key counts as an event whose type is that key's value.
"""

# The notifications of the Pay API that count. A notification with a key's name counts as an event
# whose type is the value. The notification `transaction.created` does not count.
_NOTIFICATIONS: Final = {
    "transaction.charged": _SUCCESS,
    "transaction.failed": _FAILURE,
    "transaction.rejected": _FAILURE,
    "transaction.refunded": _REFUND,
    "transaction.authorized": _AUTHORISED,
    "transaction.cancelled": _VOID,
}
# The currencies for which Plexy uses no decimals; for all other currencies, Plexy uses two.
_WHOLE: Final = frozenset(
    [
        "JPY",
        "KRW",
        "VND",
        "BIF",
        "CLP",
        "GNF",
        "KMF",
        "MGA",
        "PYG",
        "RWF",
        "UGX",
        "XAF",
        "XOF",
        "XPF",
    ]
)

_SHOWN_AS: Final = {"succeeded": "paid", "authorised": "authorised", "voided": "voided"}


class CheckedRefund(msgspec.Struct, frozen=True):
    """One refund; the fields of all ``Checked`` classes are named as in the views' documents."""

    refund_id: str
    amount: int
    currency: str
    created: int


class CheckedPayment(msgspec.Struct, frozen=True):
    """One payment.

    ``amount`` is the sum of the captures or, if there are none, the amount of the earliest success.
    """

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
    disputed: int = 0
    charged_back: int = 0


class CheckedOrder(msgspec.Struct, frozen=True):
    """The predicted part of an order's document; ``version`` counts the facts of the order."""

    status: str
    version: int
    totals: dict[str, CheckedTotals]
    payments: tuple[CheckedPayment, ...]


class _Fact(msgspec.Struct, frozen=True, order=True):
    """One event that counts; facts are sorted by time, then by event id."""

    created: int
    event_id: str
    kind: str
    data_id: str
    amount: int | None
    currency: str | None
    order: str | None


_Facts = Mapping[str, list[_Fact]]

# The state of an order that has no payment. Such an order exists if an event whose type does not
# count names the order.
_NOTHING_COUNTS: Final = CheckedOrder("unknown", 0, {}, ())


def identity(event: Mapping[str, Any]) -> str:
    """Return the text that identifies an event: its id, or a notification's name, id and time.

    >>> identity({"name": "transaction.charged", "data": {"id": "txn_1", "updatedAt": "2026"}})
    'transaction.charged txn_1 2026'
    """
    if "name" not in event:
        return str(event["id"])
    data = event["data"]
    return f"{event['name']} {data['id']} {data['updatedAt']}"


def orders(
    bodies: Iterable[bytes], rules: str = "seed", *, in_major: bool = False
) -> dict[str, CheckedOrder | None]:
    """Return every order that the bodies name; ``None`` if all payments belong to other orders.

    A refund may arrive before its payment, and a payment may arrive before the event that names the
    payment's order. So the ledger may have a wrong order for a while. ``None`` means that the order
    must not exist after all bodies have arrived. ``in_major`` says that the Pay API's amounts are
    in major units.
    """
    places: dict[str, dict[str, list[_Fact]]] = {}
    only_named = _named_by_others(bodies := list(bodies), rules)
    for order_id in only_named:
        places.setdefault(order_id, {})
    for payment_id, facts in _payments(bodies, rules, in_major=in_major).items():
        for order_id in _possible_orders(payment_id, facts):
            places.setdefault(order_id, {})
        named = [fact.order for fact in facts if fact.order]
        places[named[0] if named else payment_id][payment_id] = facts
    return {
        order_id: _order(payments) or (_NOTHING_COUNTS if order_id in only_named else None)
        for order_id, payments in places.items()
    }


def touched(
    bodies: Iterable[bytes],
    event_ids: Iterable[str],
    rules: str = "seed",
    *,
    in_major: bool = False,
) -> set[str]:
    """Return the orders whose state depends on whether the events ``event_ids`` count."""
    bodies, doubtful = list(bodies), set(event_ids)
    unsure = [body for body in bodies if identity(json.loads(body)) in doubtful]
    return _named_by_others(unsure, rules) | {
        order_id
        for payment_id, facts in _payments(bodies, rules, in_major=in_major).items()
        if any(fact.event_id in doubtful for fact in facts)
        for order_id in _possible_orders(payment_id, facts)
    }


def trial_totals(listed: Iterable[CheckedOrder | None]) -> dict[str, CheckedTotals]:
    """Return the totals of orders, by currency."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for order in listed:
        for currency, totals in order.totals.items() if order else ():
            amounts = (totals.paid, totals.refunded, totals.disputed, totals.charged_back)
            sums[currency] = [
                one + other for one, other in zip(sums[currency], amounts, strict=True)
            ]
    return {currency: _checked_totals(*sums[currency]) for currency in sorted(sums)}


def _checked_totals(paid: int, refunded: int, disputed: int, lost: int) -> CheckedTotals:
    return CheckedTotals(paid, refunded, paid - refunded - disputed - lost, disputed, lost)


def _payments(bodies: Iterable[bytes], rules: str, *, in_major: bool) -> _Facts:
    """Return, for each payment id, the payment's facts without repetitions, sorted by time."""
    facts: dict[str, dict[str, _Fact]] = {}
    for body in bodies:
        # A number with a decimal point is kept as text, because text is exact.
        event = json.loads(body, parse_float=str)
        if "name" in event:
            if event["name"] in _NOTIFICATIONS:
                payment_id, fact = _notified(event, in_major=in_major)
                facts.setdefault(payment_id, {})[fact.event_id] = fact
            continue
        kind = _TYPES[rules].get(event["type"])
        if kind is None:
            continue
        data = event["data"]
        payment_id = data["id"]
        if kind == _REFUND or rules == "lifecycle":
            payment_id = _first(data, PAYMENT_FIELDS) or payment_id
        if kind == _SUCCESS and payment_id != data["id"]:
            kind = _CAPTURE
        facts.setdefault(payment_id, {})[event["id"]] = _fact(event, kind)
    return {payment_id: sorted(each.values()) for payment_id, each in facts.items()}


def _named_by_others(bodies: Iterable[bytes], rules: str) -> set[str]:
    """Return the orders that are named by events whose type does not count."""
    counted = {*_TYPES[rules], *_NOTIFICATIONS}
    events = [
        event
        for body in bodies
        if (event := json.loads(body)).get("name", event.get("type")) not in counted
    ]
    return {order for event in events if (order := _order_named(event["data"]))}


def _order_named(data: Mapping[str, Any]) -> str | None:
    return _first(data, ORDER_FIELDS) or _first(data.get("metadata", {}), ORDER_FIELDS)


def _notified(event: Mapping[str, Any], *, in_major: bool) -> tuple[str, _Fact]:
    """Return the payment's id and the fact that a notification of the Pay API states."""
    data, kind = event["data"], _NOTIFICATIONS[event["name"]]
    parent = data.get("parentTransactionId", data["id"])
    amount = data["processedAmount"] if kind == _SUCCESS else data["amount"]
    if in_major:
        amount = int(Decimal(amount) * (1 if data["currency"] in _WHOLE else 100))
    fact = _Fact(
        created=int(datetime.fromisoformat(data["updatedAt"]).timestamp()),
        event_id=identity(event),
        kind=kind,
        data_id=data["id"],
        amount=amount,
        currency=data["currency"],
        order=data.get("merchantReference"),
    )
    return parent["Value"] if isinstance(parent, dict) else parent, fact


def _fact(event: Mapping[str, Any], kind: str) -> _Fact:
    data = event["data"]
    return _Fact(
        created=event["created"],
        event_id=event["id"],
        kind=kind,
        data_id=data["id"],
        amount=data.get("amount"),
        currency=data.get("currency"),
        order=_order_named(data),
    )


def _first(holder: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return, as text, the first value that is not empty; the value itself may be a number."""
    return next((str(holder[name]) for name in names if holder.get(name, "") != ""), None)


def _possible_orders(payment_id: str, facts: list[_Fact]) -> set[str]:
    """Return the orders that may contain the payment, depending on which facts arrive first."""
    return {fact.order or payment_id for fact in facts}


def _order(payments: _Facts) -> CheckedOrder | None:
    if not payments:
        return None
    listed = tuple(_payment(payment_id, facts) for payment_id, facts in sorted(payments.items()))
    totals = _totals(payments)
    return CheckedOrder(
        status=_status(listed, totals),
        version=sum(len(facts) for facts in payments.values()),
        totals=totals,
        payments=listed,
    )


def _payment(payment_id: str, facts: list[_Fact]) -> CheckedPayment:
    paid = _paid(payment_id, facts)
    refunds = _standing_refunds(payment_id, facts)
    return CheckedPayment(
        payment_id=payment_id,
        status=_payment_status(facts),
        amount=sum(each for each, code in paid if code == paid[0][1]) if paid else None,
        currency=paid[0][1] if paid else None,
        refunds=tuple(sorted(refunds, key=lambda each: (each.created, each.refund_id))),
    )


def _payment_status(facts: list[_Fact]) -> str:
    """Return the first status in the list below that applies to the payment."""
    kinds = {fact.kind for fact in facts}
    outcomes = [outcome for outcome, _, _ in _disputes(facts)]
    for status, holds in (
        ("disputed", None in outcomes),
        ("charged_back", _LOST in outcomes),
        ("succeeded", kinds & {_SUCCESS, _CAPTURE}),
        ("voided", _VOID in kinds),
        ("authorised", _AUTHORISED in kinds),
        ("failed", _FAILURE in kinds),
    ):
        if holds:
            return status
    return "unknown"


def _own_id(payment_id: str, fact: _Fact) -> str:
    return fact.event_id if fact.data_id == payment_id else fact.data_id


def _paid(payment_id: str, facts: list[_Fact]) -> list[tuple[Any, Any]]:
    """Return the captures' amounts or, if there are none, the amount of the earliest success."""
    captures: dict[str, tuple[Any, Any]] = {}
    for fact in facts:
        if fact.kind == _CAPTURE:
            captures.setdefault(_own_id(payment_id, fact), (fact.amount, fact.currency))
    successes = [(fact.amount, fact.currency) for fact in facts if fact.kind == _SUCCESS]
    return list(captures.values()) or successes[:1]


def _standing_refunds(payment_id: str, facts: list[_Fact]) -> list[CheckedRefund]:
    """Return each refund once; leave out the refunds that failed at or after their success."""
    refunds: dict[str, CheckedRefund] = {}
    for fact in facts:
        if fact.kind == _REFUND:
            refund_id = _own_id(payment_id, fact)
            refund = CheckedRefund(refund_id, fact.amount or 0, fact.currency or "", fact.created)
            refunds.setdefault(refund_id, refund)
    failed = [(_own_id(payment_id, f), f.created) for f in facts if f.kind == _REVERSAL]
    return [
        each
        for each in refunds.values()
        if not any(name == each.refund_id and at >= each.created for name, at in failed)
    ]


def _disputes(facts: list[_Fact]) -> list[tuple[str | None, int, str | None]]:
    """Return each dispute's latest outcome, and the first amount that one of its events states."""
    by_id: dict[str, list[_Fact]] = defaultdict(list)
    for fact in facts:
        if fact.kind in {_DISPUTE, _WON, _LOST}:
            by_id[fact.data_id].append(fact)
    found = []
    for each in by_id.values():
        outcome = next((fact.kind for fact in reversed(each) if fact.kind != _DISPUTE), None)
        stated = next((fact for fact in each if fact.amount is not None), None)
        found.append(
            (outcome, stated.amount or 0, stated.currency) if stated else (outcome, 0, None)
        )
    return found


def _totals(payments: _Facts) -> dict[str, CheckedTotals]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for payment_id, facts in payments.items():
        for amount, currency in _paid(payment_id, facts):
            sums[currency][0] += amount
        for refund in _standing_refunds(payment_id, facts):
            sums[refund.currency][1] += refund.amount
        for outcome, amount, code in _disputes(facts):
            if code is not None and outcome != _WON:
                sums[code][3 if outcome == _LOST else 2] += amount
    return {currency: _checked_totals(*sums[currency]) for currency in sorted(sums)}


def _status(payments: Iterable[CheckedPayment], totals: Mapping[str, CheckedTotals]) -> str:
    """Return the first status that applies to the order; the checks below are in sequence."""
    statuses = {payment.status for payment in payments}
    refunded = any(each.refunded > 0 for each in totals.values())
    if any(each.refunded > each.paid for each in totals.values()):
        return "over_refunded"
    for status in ("disputed", "charged_back"):
        if status in statuses:
            return status
    if refunded:
        all_of_it = all(each.refunded == each.paid for each in totals.values())
        return "refunded" if all_of_it and "succeeded" in statuses else "partially_refunded"
    for status, shown in _SHOWN_AS.items():
        if status in statuses:
            return shown
    return "failed"
