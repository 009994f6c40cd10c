"""Draws transactions of the Pay API: charged in full or in part, cancelled, refunded or failed.

A transaction's notifications are in the sequence of the changes that they report. No two
notifications have the same time. Otherwise, their ids would decide which of them is earlier.
"""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from cli.notifications import build_notification, iso_time, written_amount
from ledger.pay import PayAmounts

Notification = dict[str, Any]


class Price(NamedTuple):
    """An amount in minor units."""

    amount: int
    currency: str


class Transactions:
    """Draws transactions; ``new_id`` makes an id from a prefix, and ``now_s`` advances the time."""

    def __init__(
        self,
        random: Random,
        new_id: Callable[[str], str],
        now_s: Callable[[], int],
        amounts: PayAmounts,
    ) -> None:
        self._random = random
        self._new_id = new_id
        self._now_s = now_s
        self._amounts = amounts

    def payment(self, order: str, money: Price) -> list[Notification]:
        """Return the notifications about one payment of an order and about its refunds."""
        transaction, chance = self._new_id("txn"), self._chance

        def told(status: str, captured: int = 0) -> Notification:
            named = {} if chance(8) else {"merchantReference": order}
            data = {"id": transaction, "type": "payment", **named}
            return self._notification(status, data, money, captured)

        notifications = [told("created")] if chance(80) else []
        if chance(15):
            return [*notifications, told(self._random.choice(("failed", "rejected")))]
        if chance(70):
            notifications.append(told("authorized"))
            if chance(15):
                return [*notifications, told("cancelled")]
        captured = self._random.randint(0, money.amount) if chance(30) else money.amount
        notifications.append(told("charged", captured))
        if chance(6):
            notifications.append(told("charged", captured))
        if chance(40):
            notifications += self._refunds(transaction, order, Price(captured, money.currency))
        return notifications

    def _refunds(self, transaction: str, order: str, money: Price) -> list[Notification]:
        part = self._random.randint(0, money.amount)
        parts = self._random.choice(((part,), (money.amount,), (part, money.amount - part)))
        return [self._refund(transaction, order, Price(each, money.currency)) for each in parts]

    def _refund(self, transaction: str, order: str, money: Price) -> Notification:
        """Return a refund: a separate transaction that names the refunded transaction as parent."""
        parent = {"Value": transaction} if self._chance(30) else transaction
        data = {"id": self._new_id("txn"), "type": "refund", "parentTransactionId": parent}
        if self._chance(30):
            data["merchantReference"] = order
        return self._notification("refunded", data, money, money.amount)

    def _notification(
        self, status: str, data: dict[str, Any], money: Price, captured: int
    ) -> Notification:
        def written(amount_minor: int) -> int | float | str:
            return written_amount(amount_minor, money.currency, self._amounts)

        details = {
            "amount": written(money.amount),
            "processedAmount": written(captured),
            "currency": money.currency,
            "updatedAt": iso_time(self._now_s()),
            "cardTokenId": {"Value": f"tok_{self._random.randrange(10_000)}"},
            "last4": f"{self._random.randrange(10_000):04d}",
        }
        return build_notification(status, {**data, **details})

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent
