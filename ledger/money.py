"""Money: an amount in integer minor units, and its ISO 4217 currency.

Input: amounts and codes from events, and amounts written by people. Output: ``Money``, or a
``MoneyError`` with the reason. Invariant: no amount is a float, and no sum mixes currencies.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ledger.currencies import MINOR_UNIT_DIGITS

# JSON readers that convert numbers to doubles are exact up to this limit (RFC 8259, section 6).
MAX_AMOUNT_MINOR: Final = 2**53 - 1

# By default, Python refuses to convert a longer text to an integer.
_DIGITS: Final = re.compile(r"0*([0-9]{1,4300})")
# No amount needs more than 30 digits, and a text of thousands of digits is slow to convert.
_MOST_SHIFTED: Final = 30
_NUMBER: Final = re.compile(r"(-?)([0-9]{1,30})(?:\.([0-9]{1,30}))?(?:[eE]([+-]?[0-9]{1,30}))?")
_DECIMAL: Final = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?")


class MoneyError(ValueError):
    """A value is not an amount of money; ``reason`` is a stable name for the cause."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_amount(amount_minor: object) -> int:
    """Return the amount, in minor units, if it is an integer from 0 to ``MAX_AMOUNT_MINOR``.

    Raises ``MoneyError`` with reason ``amount_missing``, ``amount_not_integer``,
    ``amount_negative`` or ``amount_too_large``.

    >>> check_amount(500000)
    500000
    """
    # ``isinstance`` would accept True, because bool is a subclass of int.
    if type(amount_minor) is int and 0 <= amount_minor <= MAX_AMOUNT_MINOR:
        return amount_minor
    if amount_minor is None:
        raise MoneyError("amount_missing", "the amount is missing")
    if type(amount_minor) is not int:
        kind = type(amount_minor).__name__
        raise MoneyError("amount_not_integer", f"expected an integer of minor units, got {kind}")
    if amount_minor < 0:
        raise MoneyError("amount_negative", f"expected an amount from 0, got {amount_minor}")
    raise MoneyError("amount_too_large", f"expected at most {MAX_AMOUNT_MINOR}")


def check_currency(currency: object) -> str:
    """Return the code if it is an upper-case code of ``ledger.currencies``.

    Raises ``MoneyError`` with reason ``currency_missing`` or ``currency_unknown``.

    >>> check_currency("KZT")
    'KZT'
    """
    if type(currency) is str and currency in MINOR_UNIT_DIGITS:
        return currency
    if currency is None:
        raise MoneyError("currency_missing", "the currency is missing")
    # The value may be of any length, so the message quotes only its first characters.
    raise MoneyError(
        "currency_unknown", f"expected an ISO 4217 code such as KZT, got {currency!r:.40}"
    )


class MajorUnits(msgspec.Struct, frozen=True):
    """An amount in major units as it was written, for example ``1500.50``."""

    text: str


class WrittenAmount(msgspec.Struct, frozen=True):
    """An amount as its exact text, for example ``1500.50``, in major or in minor units."""

    text: str
    in_major: bool


class Money(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An amount in minor units (cents for USD, tiyn for KZT) and its ISO 4217 code.

    >>> Money(150000, "KZT") + Money(1, "KZT")
    Money(amount_minor=150001, currency='KZT')
    >>> Money(1.5, "KZT")
    Traceback (most recent call last):
    ledger.money.MoneyError: expected an integer of minor units, got float
    """

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        amount_minor = self.amount_minor
        # Nearly every amount is good, and two function calls for each fact would cost more than
        # these checks.
        if type(amount_minor) is not int or not 0 <= amount_minor <= MAX_AMOUNT_MINOR:
            check_amount(amount_minor)
        if type(self.currency) is not str or self.currency not in MINOR_UNIT_DIGITS:
            check_currency(self.currency)

    def __add__(self, other: Any) -> "Money":
        """Add an amount of the same currency; raise ``MoneyError`` for a different currency."""
        if not isinstance(other, Money):
            return NotImplemented
        if other.currency != self.currency:
            raise MoneyError("currency_mismatch", f"{self.currency} and {other.currency} don't add")
        return Money(self.amount_minor + other.amount_minor, self.currency)


def read_money(amount: object, currency: object) -> Money:
    """Read the amount and the currency of an event; Plexy has changed their JSON types before.

    An amount is an integer of minor units, a float such as 5000.0, a text of digits, an object with
    ``value`` and ``currency``, or a ``WrittenAmount``. A currency's code may be in upper or lower
    case. Raises ``MoneyError`` for the reasons of ``check_amount`` and ``check_currency``. If the
    object contradicts ``currency``, the reason is ``currency_conflicts``. For a ``WrittenAmount``,
    the reason may also be ``amount_not_decimal`` or ``amount_too_precise``.

    >>> read_money("5000", "kzt") == read_money({"value": 5000.0, "currency": "KZT"}, None)
    True
    """
    # Nearly every amount is an integer with an upper-case code; both are taken unchanged.
    if type(amount) is int and type(currency) is str and currency in MINOR_UNIT_DIGITS:
        return Money(amount, currency)
    if isinstance(amount, dict):
        inner = amount.get("currency")
        if inner is None:
            inner = currency
        if currency is not None and _code(inner) != _code(currency):
            raise MoneyError(
                "currency_conflicts", f"got {inner!r:.40} with the amount, and {currency!r:.40}"
            )
        amount, currency = amount.get("value"), inner
    if isinstance(amount, WrittenAmount):
        code = check_currency(_code(currency))
        return Money(_exact(amount.text, MINOR_UNIT_DIGITS[code] if amount.in_major else 0), code)
    return Money(_amount(amount), _code(currency))  # type: ignore[arg-type]


def _exact(text: str, digits: int) -> int:
    """Return a decimal number times ten to the power of ``digits``; raise if it is no integer."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise MoneyError("amount_not_decimal", f"expected a decimal number, got {text!r:.40}")
    sign, whole, part, exponent = found[1], found[2], found[3] or "", int(found[4] or 0)
    number, shift = int(whole + part), digits + exponent - len(part)
    if sign and number:
        raise MoneyError("amount_negative", f"expected an amount from 0, got {text!r:.40}")
    if number and shift > _MOST_SHIFTED:
        raise MoneyError("amount_too_large", f"expected at most {MAX_AMOUNT_MINOR} minor units")
    # ``number`` has at most 60 digits, so a larger scale would leave the same remainder.
    scale = 10 ** min(-shift, 2 * _MOST_SHIFTED) if shift < 0 else 1
    amount_minor, rest = divmod(number * 10 ** max(shift, 0) if number else 0, scale)
    if rest:
        raise MoneyError("amount_too_precise", f"expected {digits} decimals, got {text!r:.40}")
    return check_amount(amount_minor)


def _amount(amount: object) -> object:
    """Return the integer in a number or a text; return any other value unchanged."""
    if type(amount) is int:
        return amount
    if isinstance(amount, float) and amount.is_integer():
        return int(amount)
    if isinstance(amount, str):
        digits = _DIGITS.fullmatch(amount)
        if digits is None:
            raise MoneyError("amount_not_integer", f"expected only digits, got {amount!r:.40}")
        return int(digits[1])
    return amount


def _code(currency: object) -> object:
    return currency.upper() if isinstance(currency, str) and currency.isascii() else currency


def major_units(
    amount_minor: int, currency: str, digits_of: Mapping[str, int] = MINOR_UNIT_DIGITS
) -> str:
    """Write an amount for people, in major units, with the currency's own number of decimals.

    >>> major_units(-150050, "KZT"), major_units(7, "JPY"), major_units(5, "KWD", {"KWD": 3})
    ('-1500.50', '7', '0.005')
    """
    digits = digits_of[currency]
    sign = "-" if amount_minor < 0 else ""
    whole, part = divmod(abs(amount_minor), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}" if digits else f"{sign}{whole}"


def minor_units(text: str, currency: str, digits_of: Mapping[str, int] = MINOR_UNIT_DIGITS) -> int:
    """Read a non-negative amount in major units; this is the inverse of ``major_units``.

    The text has digits, and may have a point and decimals. Decimals beyond the currency's own
    number of decimals must be zeros.
    Raises ``MoneyError`` with reason ``currency_unknown``, ``amount_not_decimal``,
    ``amount_too_precise`` or ``amount_too_large``.

    >>> minor_units("1500.50", "KZT"), minor_units("7.00", "JPY")
    (150050, 7)
    """
    digits = digits_of[check_currency(currency)]
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise MoneyError(
            "amount_not_decimal",
            f"expected digits, with a point before decimals, such as 1500.50, got {text!r:.40}",
        )
    whole, part = found[1], found[2] or ""
    if part[digits:].strip("0"):
        raise MoneyError("amount_too_precise", f"{currency} has {digits} decimals, got {text!r}")
    amount_minor = int(whole + part[:digits].ljust(digits, "0"))
    if amount_minor > MAX_AMOUNT_MINOR:
        most = major_units(MAX_AMOUNT_MINOR, currency, digits_of)
        raise MoneyError("amount_too_large", f"expected at most {most} {currency}, got {text!r}")
    return amount_minor
