"""Builds notifications of Plexy's Pay API, and the headers with which they are delivered."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ledger.money import major_units
from ledger.pay import PayAmounts

PAY_PATH: Final = "/webhooks/plexy-pay"
# A double is precise enough for every digit of an amount in major units if the amount is below this
# limit. A larger amount is written as text.
_EXACT_BELOW_MINOR: Final = 10**12


def build_notification(status: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notification that a transaction now has the status ``status``."""
    return {
        "name": f"transaction.{status}",
        "merchantId": "123456",
        "data": {"status": status, **data},
    }


def iso_time(unix_s: int) -> str:
    """Return a time as the Pay API writes it.

    >>> iso_time(1767225600)
    '2026-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def written_amount(amount_minor: int, currency: str, amounts: PayAmounts) -> int | float | str:
    """Return an amount as the Pay API writes it; ``amounts`` is the unit of the API's amounts.

    >>> written_amount(150050, "KZT", PayAmounts.MINOR)
    150050
    >>> written_amount(150050, "KZT", PayAmounts.MAJOR), written_amount(7, "JPY", PayAmounts.MAJOR)
    (1500.5, 7.0)
    """
    if amounts is PayAmounts.MINOR:
        return amount_minor
    text = major_units(amount_minor, currency)
    return float(text) if amount_minor < _EXACT_BELOW_MINOR else text


def bearer_headers(token: str) -> dict[str, str]:
    """Return the headers with which a notification is delivered."""
    return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
