"""Reads a settlement file's amounts and the option ``--zone``; people write both in many forms.

Input: an amount in major units, or the name of a time zone, as a person wrote it. Output: the
amount as digits with a decimal point, or the time zone. Invariant: an amount that has two possible
meanings is refused.
"""

import re
from datetime import timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cli.errors import WrongOptionError
from ledger.money import MoneyError

_WHOLE: Final = re.compile(
    r"[0-9]+|[0-9]{1,3}([.,\u0020\u00a0\u202f'\u2019])[0-9]{3}(?:\1[0-9]{3})*"
)
_OFFSET: Final = re.compile(
    r"(?:UTC|(?=.[0-9]{2}:))([+-])([0-9]{1,2})(?::([0-5][0-9]))?", re.IGNORECASE
)
# A single separator before three digits may separate thousands or decimals. If the digits before
# the separator begin with a zero, the separator is a decimal mark.
_AMBIGUOUS: Final = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")
_THREE_DECIMALS: Final = 3


def plain_amount(text: str, decimal: str | None, decimals: int = 2) -> str:
    """Return an amount without separators of thousands; ``decimal`` is the file's decimal mark.

    ``decimals`` is the currency's number of decimals. The ledger writes decimals after a point. So
    if the currency has three decimals, a point before three digits is a decimal point.

    >>> [plain_amount(text, None) for text in ("1 500,50", "1,234,567", "1500.5")]
    ['1500.50', '1234567', '1500.5']
    >>> plain_amount("1.234", "."), plain_amount("1.234", ","), plain_amount("0,234", None)
    ('1.234', '1234', '0.234')
    >>> plain_amount("1.234", None, decimals=3)
    '1.234'
    """
    mark = decimal or _decimal_mark(text, decimals)
    whole, found, part = text.rpartition(mark)
    if not found:
        whole, part = text, ""
    grouped = _WHOLE.fullmatch(whole)
    if grouped is None or grouped[1] == mark or (found and not part.isdigit()):
        raise MoneyError(
            "amount_not_decimal", f"expected digits and decimals such as 1500.50, got {text!r:.40}"
        )
    return "".join(filter(str.isdigit, whole)) + (f".{part}" if found else "")


def _decimal_mark(text: str, decimals: int) -> str:
    points, commas = text.count("."), text.count(",")
    if points and commas:
        return max(".,", key=text.rfind)
    if _AMBIGUOUS.fullmatch(text) and not (points and decimals == _THREE_DECIMALS):
        raise MoneyError(
            "amount_not_decimal", f"{text!r:.40} has two meanings: give --decimal . or --decimal ,"
        )
    return "," if commas == 1 or points > 1 else "."


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name, or by its offset from UTC.

    >>> zone_of("UTC+5") == zone_of("+05:00")
    True
    """
    found = _OFFSET.fullmatch(name)
    try:
        if found is None:
            return ZoneInfo(name)
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        return timezone(-offset if found[1] == "-" else offset)
    except (ValueError, OSError, LookupError):
        raise WrongOptionError(
            f"--zone: expected a name such as Asia/Almaty, or an offset such as UTC+5, got "
            f"{name!r:.40}"
        ) from None
