"""Annotations that put the meanings and bounds of fields into the schemas of published records.

Some annotated types are shared by several published types. The bounds are promises that the fold
keeps. The bounds are not checked at run time: a decoder must also read a wrong value, so that
``verify`` can report the value.
"""

from typing import Annotated, Any, Final

import msgspec

from ledger.envelope import MAX_ID_BYTES
from ledger.money import MAX_AMOUNT_MINOR


def meaning(text: str, **keywords: Any) -> msgspec.Meta:
    """Describe a field of a published type; ``keywords`` go into its JSON Schema unchanged."""
    return msgspec.Meta(description=text, extra_json_schema=keywords or None)


def _bounds(**keywords: Any) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema=keywords)


# A character has at least one byte, so a bound in bytes is also a bound in characters.
Id = Annotated[str, _bounds(minLength=1, maxLength=MAX_ID_BYTES)]
UnixSeconds = Annotated[int, _bounds(minimum=0, maximum=MAX_AMOUNT_MINOR)]
AmountMinor = Annotated[int, _bounds(minimum=0, maximum=MAX_AMOUNT_MINOR)]
# A sum has no upper bound: it may be more than a double or a 64-bit integer can hold.
SumMinor = Annotated[int, _bounds(minimum=0)]
Count = Annotated[int, _bounds(minimum=1)]
Position = Annotated[int, _bounds(minimum=0)]
_CURRENCY: Final = "^[A-Z]{3}$"
Currency = Annotated[str, _bounds(pattern=_CURRENCY)]
NotEmpty = Annotated[str, _bounds(minLength=1)]
# A header holds a number as text.
Digits = Annotated[str, _bounds(pattern="^[0-9]+$")]
Sha256 = Annotated[str, _bounds(pattern="^[0-9a-f]{64}$")]
BY_CURRENCY: Final = {"propertyNames": {"pattern": _CURRENCY}}
NOT_EMPTY: Final = {"minItems": 1}
