"""Defines the setting for the number of decimals with which people and files write amounts.

Input: the text of ``LEDGER_MINOR_UNITS``. Output: the number of decimals of each currency. The
setting never changes a stored amount, because amounts are integers of minor units.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from ledger.currencies import MINOR_UNIT_DIGITS
from runtime.settings import setting

# ISO 4217 has no currency with more than four decimals.
_PAIR: Final = re.compile(r"\s*([A-Za-z]{3})\s*:\s*([0-4])\s*")


class MinorUnits:
    """The number of decimals of each currency: ``ledger.currencies`` with a shop's exceptions.

    Raises ``ValueError`` for a text that is not a list of codes with their decimals.

    >>> MinorUnits("KWD:3, isk:0").digits_of["KWD"], MinorUnits().digits_of["KWD"]
    (3, 2)
    """

    __slots__ = ("_text", "digits_of")

    def __init__(self, text: str = "") -> None:
        changed: dict[str, int] = {}
        for part in filter(str.strip, text.split(",")):
            pair = _PAIR.fullmatch(part)
            if pair is None:
                raise ValueError(_expected("each with 0 to 4 decimals"))
            code = pair[1].upper()
            if code not in MINOR_UNIT_DIGITS:
                raise ValueError(_expected(f"each known to the ledger ({code} is unknown)"))
            if code in changed:
                raise ValueError(_expected(f"each only once ({code} is repeated)"))
            changed[code] = int(pair[2])
        self._text = text
        self.digits_of: Final[Mapping[str, int]] = MappingProxyType(
            {**MINOR_UNIT_DIGITS, **changed}
        )

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MinorUnits) and other.digits_of == self.digits_of

    def __hash__(self) -> int:
        return hash(tuple(self.digits_of.items()))


def _expected(rule: str) -> str:
    return f"expected currencies such as KWD:3,ISK:0, {rule}"


PLEXYS_MINOR_UNITS: Final = MinorUnits()
"""The number of decimals of each currency on Plexy's scale, without any exceptions."""

CurrencyDecimals = Annotated[
    MinorUnits,
    setting(
        "number of decimals, such as `KWD:3,ISK:0`, of the currencies that are not written on "
        "Plexy's scale: for the page, exports and reconciliation; stored amounts do not change"
    ),
]
