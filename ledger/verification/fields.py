"""Describes, in a readable sentence, the fields in which two of the ledger's values differ."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

# Longer values or more fields would not help a reader to find the error.
_SHOWN_CHARS: Final = 80
_MOST_FIELDS: Final = 5
_NOTHING: Final = "nothing"

Fields = dict[str, Any]
Say = Callable[[str, str], str]
"""Makes a phrase from a field's two values, which are passed as text."""


def fields(value: Any) -> Fields:
    """Return the fields of a value and of nested values by path; an empty container has no field.

    >>> from ledger.money import Money
    >>> fields({"evt_1": Money(5, "KZT"), "evt_2": None, "evt_3": ()})
    {'evt_1.amount_minor': 5, 'evt_1.currency': 'KZT', 'evt_2': None}
    """
    return dict(_leaves(value))


def unlike(expected: Any, got: Any, say: Say = "expected {}, got {}".format) -> str:
    """Name the first fields in which two values differ, and count the rest.

    The text is empty if the values are equal.

    >>> unlike({"paid": 5, "net": 5}, {"paid": 5, "net": 6, "refunded": 1})
    'net: expected 5, got 6; refunded: expected nothing, got 1'
    """
    one, other = fields(expected), fields(got)
    told = [
        f"{path}: {say(_shown(one, path), _shown(other, path))}"
        for path in one | other
        if path not in one or path not in other or one[path] != other[path]
    ]
    if not told and expected != got:
        return "the values differ, but no field does"
    more = [f"and {len(told) - _MOST_FIELDS} more fields"] if told[_MOST_FIELDS:] else []
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


def _shown(values: Fields, path: str) -> str:
    text = repr(values[path]) if path in values else _NOTHING
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
