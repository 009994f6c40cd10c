"""Names the fields in which two values differ, however deep.

In: two values of the ledger's own types. Out: a sentence for a person. Pure. Never: a whole value,
which says that something differs and leaves the reader to find what.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

# As much of a value, and as many fields, as help to find what is wrong.
_SHOWN_CHARS: Final = 80
_MOST_FIELDS: Final = 5

Fields = dict[str, Any]


def fields(value: Any) -> Fields:
    """Return each field of a value by the path to it; what holds nothing has no field.

    >>> from ledger.money import Money
    >>> fields({"evt_1": Money(5, "KZT"), "evt_2": None, "evt_3": ()})
    {'evt_1.amount_minor': 5, 'evt_1.currency': 'KZT', 'evt_2': None}
    """
    return dict(_leaves(value))


def unlike(one: Fields, other: Fields, say: Callable[[str, str], str]) -> str:
    """Name the first fields that differ, each with what is said of its values, and count the rest.

    >>> unlike({"paid": 5, "net": 5}, {"paid": 5, "net": 6, "refunded": 1}, "{}, not {}".format)
    'net: 5, not 6; refunded: nothing, not 1'
    """
    both = [(path, one.get(path, "nothing"), other.get(path, "nothing")) for path in one | other]
    told = [f"{path}: {say(_shown(a), _shown(b))}" for path, a, b in both if a != b]
    more = [f"and {len(told) - _MOST_FIELDS} fields more"] if told[_MOST_FIELDS:] else []
    return "; ".join(told[:_MOST_FIELDS] + more)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if value is msgspec.UNSET:
        return
    inner = _inner(value)
    if inner is None:
        yield path, value
        return
    for name, each in inner.items():
        yield from _leaves(each, f"{path}.{name}" if path else str(name))


def _inner(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else None


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
