"""What the schemas of published records say of a field: its meaning, and the bounds that it keeps.

In: words and JSON Schema keywords. Out: annotations for the types that are published, and kinds of
field that occur in several of them. Never: a check at run time. A bound is the fold's to keep, and
stands here as a promise: a decoder must also read a value that is wrong, for ``verify`` to name it.
"""

from typing import Annotated, Any, Final

import msgspec

from ledger.envelope import MAX_ID_BYTES
from ledger.money import MAX_AMOUNT_MINOR


def meaning(text: str, **keywords: Any) -> msgspec.Meta:
    """Describe a field of a published type; ``keywords`` go into its JSON Schema as they are."""
    return msgspec.Meta(description=text, extra_json_schema=keywords or None)


def _bounds(**keywords: Any) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema=keywords)


# A character has at least one byte: so the bound in bytes holds for characters too.
Id = Annotated[str, _bounds(minLength=1, maxLength=MAX_ID_BYTES)]
UnixSeconds = Annotated[int, _bounds(minimum=0, maximum=MAX_AMOUNT_MINOR)]
AmountMinor = Annotated[int, _bounds(minimum=0, maximum=MAX_AMOUNT_MINOR)]
# A sum has no bound of its own: it may be more than a double, or 64 bits, can hold.
SumMinor = Annotated[int, _bounds(minimum=0)]
Count = Annotated[int, _bounds(minimum=1)]
Position = Annotated[int, _bounds(minimum=0)]
_CURRENCY: Final = "^[A-Z]{3}$"
Currency = Annotated[str, _bounds(pattern=_CURRENCY)]
NotEmpty = Annotated[str, _bounds(minLength=1)]
# A number in a header, which is text.
Digits = Annotated[str, _bounds(pattern="^[0-9]+$")]
Sha256 = Annotated[str, _bounds(pattern="^[0-9a-f]{64}$")]
BY_CURRENCY: Final = {"propertyNames": {"pattern": _CURRENCY}}
NOT_EMPTY: Final = {"minItems": 1}
