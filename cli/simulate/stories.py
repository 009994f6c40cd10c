"""Draws stories of virtual shops from a seed: orders, attempts to pay, and refunds.

A shop may use both of Plexy's dialects, so an order may have payments in both dialects.

A story consists of the events of one order, in the sequence in which they happened. Stories depend
only on the run's seed, number of events, rules and dialects. The ids change with the seed and with
the number of events.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from cli.send import build_event
from cli.simulate.oracle import ORDER_FIELDS, PAYMENT_FIELDS
from cli.simulate.transactions import Price, Transactions
from ledger.pay import PayAmounts

Event = dict[str, Any]

# These currencies have zero, two or three decimals.
_CURRENCIES: Final = ("JPY", "KZT", "USD", "BHD", "EUR", "KWD", "KRW")
# Ids end with one of these texts, which must stay intact in JSON, in Kafka's keys and in a URL.
_ENDINGS: Final = ("", "", "", "/7", " ж", "-ü", "/../x y", "%2F", "?a=b&c#d", "№+日本", '"\\')
_OTHER_TYPES: Final = ("payment.pending", "refund.failed", "payout.paid", "dispute.opened", "x")
_TEXTS: Final = ("", "Two of these", "Два чая & пирог", "line\nbreak", "🧾")
# A double holds every integer up to this number, but not every larger integer. For example, it does
# not hold every sum of two such amounts.
_LARGEST_MINOR: Final = 2**53 - 1
_FIRST_SECOND: Final = 1_767_225_600  # 2026-01-01
_SHOPS: Final = 20


class Shop(msgspec.Struct, frozen=True):
    """A shop's habits: the fields that name orders and payments, and the form of its ids."""

    order_field: str
    in_metadata: bool
    payment_field: str
    ending: str
    numbers_orders: bool


class Dialects(msgspec.Struct, frozen=True):
    """The dialects of a run's payments.

    ``pay`` is the unit of the Pay API's amounts, or ``None`` if the run does not use the Pay API.
    """

    sdk: bool = True
    pay: PayAmounts | None = None


SDK: Final = Dialects()


def shops() -> list[Shop]:
    """Return shops that together use every documented field name in every possible place."""
    return [
        Shop(
            order_field=ORDER_FIELDS[n % len(ORDER_FIELDS)],
            in_metadata=n // len(ORDER_FIELDS) % 2 == 1,
            payment_field=PAYMENT_FIELDS[n % len(PAYMENT_FIELDS)],
            ending=_ENDINGS[n % len(_ENDINGS)],
            numbers_orders=n % 7 == 0,
        )
        for n in range(_SHOPS)
    ]


class Stories:
    """An endless iterator of stories.

    Every id that is not a number contains the seed and the number of events. If ``rules`` is
    ``lifecycle``, payments also have captures, voids, reversals and disputes.
    """

    def __init__(
        self, seed: int, events: int, rules: str = "seed", dialects: Dialects = SDK
    ) -> None:
        self._rules = rules
        self._dialects = dialects
        self._run = f"{seed}-{events}"
        self._random = Random(f"stories {self._run}")
        self._shops = shops()
        self._now_s = _FIRST_SECOND
        self._ids = 0
        self._transactions = Transactions(
            self._random, self._new_id, self._next_second, dialects.pay or PayAmounts.MINOR
        )

    def __iter__(self) -> Iterator[list[Event]]:
        return self

    def __next__(self) -> list[Event]:
        """Return the events of one order: its payments, one after another."""
        shop = self._random.choice(self._shops)
        order = self._order_reference(shop)
        payments = self._random.choice((1, 1, 1, 1, 2, 3))
        return [event for _ in range(payments) for event in self._payment_in(shop, order)]

    def _payment_in(self, shop: Shop, order: str | int) -> list[Event]:
        """Return one payment's events, in one of the dialects."""
        dialects = self._dialects
        if dialects.pay is not None and (not dialects.sdk or self._chance(50)):
            return self._transactions.payment(str(order), self._money())
        return self._payment(shop, order)

    def _payment(self, shop: Shop, order: str | int) -> list[Event]:
        """Return one payment's events.

        Most payments have a success. A payment may also have failed attempts, refunds, and events
        whose type the ledger does not fold.
        """
        chance, money = self._chance, self._money()
        payment_id = self._id("pay", shop)
        failures = self._random.choice((0, 0, 0, 1, 2))
        kinds = ["payment.failed"] * failures
        if chance(90) or not failures:
            kinds.append("payment.succeeded")
        events = [self._attempt(kind, shop, payment_id, money, order) for kind in kinds]
        if kinds[-1] == "payment.succeeded" and chance(45):
            events += self._refunds(shop, payment_id, money, order)
        if self._rules == "lifecycle" and chance(50):
            events += self._lifecycle(shop, payment_id, money, order)
        if chance(15):
            other = self._random.choice(_OTHER_TYPES)
            events.append(self._attempt(other, shop, payment_id, money, order))
        if chance(8):
            events.append(self._surprise(shop, payment_id, money, order))
        if chance(3):
            # These refunds belong to a payment that has no other event.
            events += self._refunds(shop, self._id("pay", shop), money, order)
        return events

    def _lifecycle(
        self, shop: Shop, payment_id: str, money: Price, order: str | int
    ) -> list[Event]:
        """Return the events of one case: captures, a void, a reversed refund, or a dispute."""
        attempt = partial(self._attempt, shop=shop, payment_id=payment_id, order=order)
        about = partial(self._about, shop, payment_id)
        part = Price(self._random.randint(0, money.amount), money.currency)
        match self._random.randrange(5):
            case 0:
                kind = self._random.choice(("payment.captured", "payment.succeeded"))
                captures = [about(kind, self._id("cap", shop), each) for each in (part, part)]
                authorised = attempt("payment.authorized", money=money)
                return [authorised, *captures[: self._random.randint(1, 2)]]
            case 1:
                return [attempt("payment.captured", money=part)]
            case 2:
                return [
                    attempt(kind, money=money) for kind in ("payment.authorized", "payment.voided")
                ]
            case 3:
                refund = self._refund(shop, payment_id, part, order)
                failed = self._event(shop, "refund.failed", refund["data"])
                return [refund, failed]
            case _:
                dispute_id, outcomes = self._id("dp", shop), ("dispute.won", "dispute.lost")
                kinds = ("dispute.created", *self._random.choices(outcomes, k=2))
                shown = kinds[: self._random.randint(1, 3)]
                # Only some events of a dispute state its amount.
                stated = [part if self._chance(70) else None for _ in shown]
                return [
                    about(kind, dispute_id, each) for kind, each in zip(shown, stated, strict=True)
                ]

    def _about(
        self, shop: Shop, payment_id: str, kind: str, own_id: str, money: Price | None
    ) -> Event:
        """Return an event with the id of a capture or a dispute, and the id of its payment."""
        data = {"id": own_id, shop.payment_field: payment_id}
        return self._event(shop, kind, data | (self._details(kind, money) if money else {}))

    def _attempt(
        self, kind: str, shop: Shop, payment_id: str, money: Price, order: str | int
    ) -> Event:
        data = {"id": payment_id, **self._details(kind, money)}
        if self._chance(92):
            data |= _reference(shop, order)
        return self._event(shop, kind, data)

    def _refunds(self, shop: Shop, payment_id: str, money: Price, order: str | int) -> list[Event]:
        """Return the refunds of one payment.

        They refund a part of the amount, the whole amount, the whole amount in two parts, or more
        than the amount.
        """
        part = self._random.randint(0, money.amount)
        wholes = ((part,), (money.amount,), (part, money.amount - part), (money.amount, part))
        amounts = self._random.choices(wholes, weights=(45, 25, 20, 10))[0]
        refunds = [
            self._refund(shop, payment_id, Price(amount, money.currency), order)
            for amount in amounts
        ]
        if self._chance(6):
            # A second event repeats the refund, perhaps with a new amount; the refund counts once.
            again = refunds[0]["data"] | {"amount": self._random.choice((amounts[0], 7))}
            refunds.append(self._event(shop, "refund.succeeded", again))
        return refunds

    def _refund(self, shop: Shop, payment_id: str, money: Price, order: str | int) -> Event:
        kind = "refund.succeeded"
        data: dict[str, Any] = self._details(kind, money)
        if self._chance(5):
            # Instead of a refund, some APIs send the payment itself with the refunded amount.
            data = {"id": payment_id, **data}
        else:
            data = {"id": self._id("re", shop), shop.payment_field: payment_id, **data}
        if self._chance(30):
            data |= _reference(shop, order)
        return self._event(shop, kind, data)

    def _surprise(self, shop: Shop, payment_id: str, money: Price, order: str | int) -> Event:
        """Return a late event that repeats or changes the state of a payment."""
        match self._random.randrange(4):
            case 0:  # a second event repeats the success
                return self._attempt("payment.succeeded", shop, payment_id, money, order)
            case 1:  # a success with a different amount
                other = self._money()
                return self._attempt("payment.succeeded", shop, payment_id, other, order)
            case 2:  # a refund in a different currency
                return self._refund(shop, payment_id, self._money(), order)
            case _:  # an early attempt under a different order, to which the payment moves
                data = {"id": payment_id, **self._details("payment.failed", money)}
                data |= _reference(shop, self._order_reference(shop))
                return self._event(shop, "payment.failed", data, ago_s=86_400)

    def _event(self, shop: Shop, kind: str, data: dict[str, Any], *, ago_s: int = 0) -> Event:
        # The ledger sorts events of the same second by their ids, and these ids are random.
        self._now_s += self._random.choice((0, 0, 1, 7, 60))
        event_id = self._id(f"evt_{self._random.getrandbits(32):08x}", shop)
        return build_event(event_id, kind, self._now_s - ago_s, data)

    def _details(self, kind: str, money: Price) -> dict[str, Any]:
        return {
            "amount": money.amount,
            "currency": money.currency,
            "status": kind.rpartition(".")[2],
            "description": self._random.choice(_TEXTS),
            "method": {"kind": "card", "last4": f"{self._random.randrange(10_000):04d}"},
        }

    def _money(self) -> Price:
        limits: Sequence[int] = (0, 1, _LARGEST_MINOR)
        ordinary = self._random.randint(1, 10_000_000)
        amount = self._random.choice(limits) if self._chance(6) else ordinary
        return Price(amount, self._random.choice(_CURRENCIES))

    def _order_reference(self, shop: Shop) -> str | int:
        return self._random.getrandbits(52) if shop.numbers_orders else self._id("ord", shop)

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def _id(self, prefix: str, shop: Shop) -> str:
        return self._new_id(prefix) + shop.ending

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._run}_{self._ids}"

    def _next_second(self) -> int:
        self._now_s += 1
        return self._now_s


def _reference(shop: Shop, order: str | int) -> dict[str, Any]:
    named = {shop.order_field: order}
    return {"metadata": {"source": "web", **named}} if shop.in_metadata else named
