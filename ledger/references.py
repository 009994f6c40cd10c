"""Read the ids and references of an event.

Input: the ``data`` of an event, and the names of fields. Output: each reference as text.
Invariants: a value is a reference only if it has one meaning, and no value raises an exception.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from ledger.envelope import decimal_text
from ledger.json_values import MalformedJsonError, decode_json

# Programs write these texts where they had no value; they are compared in lower case.
_PLACEHOLDERS: Final = frozenset({"", "undefined", "null", "none", "nan", "[object object]"})
_LONGEST_PLACEHOLDER: Final = max(map(len, _PLACEHOLDERS))


def is_placeholder(text: str) -> bool:
    """Return whether a text stands for no value.

    >>> [is_placeholder(text) for text in ("undefined", "NULL", " ", "ord_1")]
    [True, True, True, False]
    """
    if len(text) > _LONGEST_PLACEHOLDER and not text.isspace():
        return False
    return text.strip().lower() in _PLACEHOLDERS


def references(
    holder: Mapping[str, Any], names: tuple[str, ...]
) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the reference of each field that has a value; ``None`` for no reference.

    A name with dots is a path through objects, and through the elements of lists.

    >>> data = {"order": {"id": 7}, "orderId": "ord_1", "details": [{"ref": "null"}]}
    >>> list(references(data, ("order", "orderId", "other", "details.ref")))
    [('order', '7'), ('orderId', 'ord_1'), ('details.ref', None)]
    """
    for name, steps in _steps(names):
        value = holder.get(name)
        if value is None and steps:
            value = _value_at(holder, steps)
        if value is not None and (value := _one_of(value)) is not None:
            yield name, _text(value)


def metadata_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object in ``metadata``, which may be JSON in a text; empty for any other value."""
    metadata = data.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = decode_json(metadata.encode())
        except MalformedJsonError:
            return {}
    return metadata if isinstance(metadata, dict) else {}


@cache
def _steps(names: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, tuple(name.split(".")) if "." in name else ()) for name in names]


def _value_at(holder: object, steps: tuple[str, ...]) -> object:
    for done, name in enumerate(steps):
        if isinstance(holder, list):
            return [_value_at(each, steps[done:]) for each in holder]
        if not isinstance(holder, dict):
            return None
        holder = holder.get(name)
    return holder


def _one_of(value: object) -> object:
    """Return the only distinct element of a list, or ``None``; return any other value unchanged."""
    if not isinstance(value, list):
        return value
    elements = [each for each in map(_one_of, value) if each is not None]
    texts = {_text(each) for each in elements}
    return elements[0] if len(texts) == 1 else elements or None


def _text(value: object) -> str | None:
    """Return the reference in a text, an integer, or an object's ``id``; ``None`` if none."""
    if isinstance(value, dict):
        value = value.get("id")
    text = decimal_text(value)
    return text if isinstance(text, str) and not is_placeholder(text) else None
