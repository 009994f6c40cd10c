"""Generates the recorded input: webhook deliveries that Plexy could have sent, sorted by arrival.

A seed decides every byte, so all programs and all runs with the same seed fold the same input.

Each order has a story: perhaps a failed attempt, usually a success, and perhaps refunds. Half of
the refunds name their payment but not their order. Deliveries arrive seconds after the event, and a
few of them minutes after the event, so a refund may arrive before its payment. Some deliveries are
repeated.
"""

import hmac
import json
import random
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

_FIRST_CREATED_S: Final = 1_750_000_000
_ORDER_EVERY_S: Final = 0.5
# Late refunds occur this long after the first order. That is after the stories of all orders, but
# well before the ledger forgets event ids.
_LATE_S: Final = 60 * 24 * 3600
_SECRET: Final = b"whsec_of_the_bench"

# The weights of the currencies. JPY has no decimals, BHD has three, and the others have two.
_CURRENCIES: Final = {"KZT": 70, "USD": 12, "EUR": 8, "RUB": 6, "JPY": 3, "BHD": 1}
_UNKNOWN_TYPES: Final = ("payout.paid", "customer.created", "dispute.opened")

# Unless a comment names something else, these are shares of all orders. They are estimates, because
# no such figures are published.
_FAILS_FIRST: Final = 0.12
_NEVER_SUCCEEDS: Final = 0.08
_REFUNDED: Final = 0.15
_REFUNDED_TWICE: Final = 0.2  # a share of the refunded orders
_REFUND_NAMES_ONLY_ITS_PAYMENT: Final = 0.5  # a share of the refunds
_UNKNOWN: Final = 0.01  # the orders that also have an event of an unknown type
_DELIVERED_LATE: Final = 0.03  # a share of the deliveries
_DELIVERED_TWICE: Final = 0.03  # a share of the deliveries

Body = dict[str, Any]


class RecordedDelivery(NamedTuple):
    """One record of the log: its key (the event id), body, and time of arrival."""

    key: bytes
    body: bytes
    received_at_ms: int

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers as ingress stores them, with a signature of the raw body."""
        signature = hmac.digest(_SECRET, self.body, sha256).hex()
        return [
            ("plexy-signature", f"t={self.received_at_ms // 1000},v1={signature}".encode()),
            ("received-at-ms", b"%d" % self.received_at_ms),
            ("content-type", b"application/json"),
        ]


def record(events: int, seed: int) -> list[RecordedDelivery]:
    """Return ``events`` deliveries, sorted by arrival."""
    chance = random.Random(seed)  # noqa: S311 - the input must be the same each time
    deliveries: list[RecordedDelivery] = []
    number = 0
    # More deliveries than needed are generated, and the deliveries that arrive last are cut off. So
    # the end of the input contains the same mix of stories as the rest.
    while len(deliveries) < events * 1.05:
        for body in _story(chance, number):
            deliveries.extend(_deliver(chance, body))
        number += 1
    deliveries.sort(key=lambda delivery: (delivery.received_at_ms, delivery.key))
    return deliveries[:events]


def record_orders(numbers: Iterable[int], seed: int) -> list[RecordedDelivery]:
    """Return all deliveries of these orders, sorted by arrival."""
    deliveries: list[RecordedDelivery] = []
    for number in numbers:
        # Each order has its own random generator, so no order depends on the other orders.
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - the same input each time
        for body in _story(chance, number):
            deliveries.extend(_deliver(chance, body))
    return sorted(deliveries, key=lambda delivery: (delivery.received_at_ms, delivery.key))


def record_late_refunds(numbers: Iterable[int], seed: int) -> list[RecordedDelivery]:
    """Return the deliveries of one refund per order, long after the order's other deliveries."""
    deliveries: list[RecordedDelivery] = []
    for number in numbers:
        # An order's story begins by drawing its first payment. So a generator with the same seed
        # draws the same payment.
        payment = _payment(random.Random(f"{seed} {number}"), number)  # noqa: S311
        chance = random.Random(f"{seed} {number} late")  # noqa: S311
        body = next(_refunds(chance, payment, _FIRST_CREATED_S + _LATE_S))
        deliveries.extend(_deliver(chance, body))
    return deliveries


def _story(chance: random.Random, number: int) -> Iterator[Body]:
    """Yield the events of one order, oldest first."""
    payment = _payment(chance, number)
    created = _FIRST_CREATED_S + int(number * _ORDER_EVERY_S)
    if chance.random() < _UNKNOWN:
        yield _event(chance, chance.choice(_UNKNOWN_TYPES), created, {"id": _id(chance, "obj")})
    never = chance.random() < _NEVER_SUCCEEDS
    if never or chance.random() < _FAILS_FIRST:
        yield _event(chance, "payment.failed", created, payment | {"status": "failed"})
        if never:
            return
        created += chance.randint(5, 120)
        if chance.random() < 0.5:  # noqa: PLR2004 - half of the shops retry with a new payment
            payment = payment | {"id": _id(chance, "pay")}
    yield _event(chance, "payment.succeeded", created, payment | {"status": "succeeded"})
    if chance.random() < _REFUNDED:
        yield from _refunds(chance, payment, created)


def _payment(chance: random.Random, number: int) -> Body:
    [currency] = chance.choices(list(_CURRENCIES), list(_CURRENCIES.values()))
    return {
        "id": _id(chance, "pay"),
        "amount": chance.randint(500, 5_000_000),
        "currency": currency,
        "status": "",
        **_order_reference(chance, f"ORD-{100_000 + number}"),
        "description": f"Order {100_000 + number}",
        "customer": {"id": _id(chance, "cus"), "email": f"buyer{number % 9973}@example.kz"},
        "payment_method": {"type": "card", "brand": "visa", "last4": f"{number % 10_000:04d}"},
        "livemode": True,
    }


def _order_reference(chance: random.Random, order: str) -> Body:
    forms: list[Body] = [
        {"merchantReference": order},
        {"orderReference": order},
        {"metadata": {"order_id": order, "channel": "web"}},
    ]
    return chance.choices(forms, [60, 20, 20])[0]


def _refunds(chance: random.Random, payment: Body, created: int) -> Iterator[Body]:
    count = 2 if chance.random() < _REFUNDED_TWICE else 1
    whole = chance.random() < 0.5  # noqa: PLR2004
    for _ in range(count):
        created += int(chance.expovariate(1 / 900)) + 1
        amount = payment["amount"] // count if whole else payment["amount"] // 4
        data = {
            "id": _id(chance, "re"),
            "amount": amount,
            "currency": payment["currency"],
            "status": "succeeded",
            "payment_id": payment["id"],
            "reason": "requested_by_customer",
        }
        if chance.random() >= _REFUND_NAMES_ONLY_ITS_PAYMENT:
            names = ("merchantReference", "orderReference", "metadata")
            data |= {name: payment[name] for name in names if name in payment}
        yield _event(chance, "refund.succeeded", created, data)


def _event(chance: random.Random, kind: str, created: int, data: Body) -> Body:
    return {"id": _id(chance, "evt"), "type": kind, "created": created, "data": data}


def _deliver(chance: random.Random, body: Body) -> Iterator[RecordedDelivery]:
    key = body["id"].encode()
    received_ms = body["created"] * 1000 + int(chance.expovariate(1 / 2000))
    if chance.random() < _DELIVERED_LATE:
        received_ms += chance.randint(10_000, 600_000)
    yield RecordedDelivery(key, json.dumps(body).encode(), received_ms)
    if chance.random() < _DELIVERED_TWICE:
        again_ms = received_ms + chance.randint(30_000, 600_000)
        # A sender may serialise a retry differently: the same content in different bytes.
        yield RecordedDelivery(key, json.dumps(body, separators=(",", ":")).encode(), again_ms)


def _id(chance: random.Random, prefix: str) -> str:
    return f"{prefix}_{chance.getrandbits(80):020x}"
