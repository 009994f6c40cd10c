"""Read the references of an event: the ids by which it names orders and payments.

Input: the ``data`` of an event, and the names of fields. Output: each reference as text.
Invariants: a value is a reference only if it has one meaning, and no value raises an exception.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import msgspec

from ledger.json_values import MalformedJsonError, decode_json

# Some programs write these texts in place of a missing value. Texts are compared in lower case.
_PLACEHOLDERS: Final = frozenset({"", "undefined", "null", "none", "nan", "[object object]"})
_LONGEST_PLACEHOLDER: Final = max(map(len, _PLACEHOLDERS))

# This object stands for a text that can't be read; the object is not a reference.
_UNREADABLE: Final = object()

Reference = tuple[str, str | None]
"""The name of a field that has a value, and the reference in the value.

The reference is an empty text if the value stands for no reference, and ``None`` if the value is
unusable.
"""


class Fields(msgspec.Struct, frozen=True, dict=True):
    """The names of fields that may hold a reference, the preferred field first.

    A name with dots is a path through objects, JSON texts, and the elements of lists. A key may
    itself contain dots, so a name with dots is looked up both as a key and as a path.
    """

    names: tuple[str, ...]

    @cached_property
    def paths(self) -> list[tuple[str, str, list[str]]]:
        """For each path: its first key, the field's name, and the path's other keys."""
        paths = []
        for name in self.names:
            head, *rest = name.split(".")
            paths += [(name, name, []), (head, name, rest)] if rest else [(name, name, rest)]
        return paths

    @cached_property
    def heads(self) -> frozenset[str]:
        """The first key of each path."""
        return frozenset(head for head, _, _ in self.paths)


def is_placeholder(text: str) -> bool:
    """Return whether a text stands for no value.

    >>> [is_placeholder(text) for text in ("undefined", "NULL", " ", "ord_1")]
    [True, True, True, False]
    """
    bare = text.strip()
    return len(bare) <= _LONGEST_PLACEHOLDER and bare.lower() in _PLACEHOLDERS


def references(holder: Mapping[str, Any], fields: Fields) -> list[Reference]:
    """Return the reference of each field that has a value, the preferred field first.

    >>> data = {"order": {"id": 7}, "orderId": "ord_1", "details": [{"ref": "null"}]}
    >>> references(data, Fields(("order", "orderId", "other", "details.ref")))
    [('order', '7'), ('orderId', 'ord_1'), ('details.ref', '')]
    """
    found: list[Reference] = []
    for head, name, rest in fields.paths:
        if head not in holder:
            continue
        value = _value_at(holder[head], rest) if rest else holder[head]
        # Nearly every value is a text, which is the reference unless the text stands for no value.
        if type(value) is str and not is_placeholder(value):
            found.append((name, value))
            continue
        if isinstance(value, list):
            value = _one_of(value)
        if value is not None:
            found.append((name, _text(value)))
    return found


def metadata_references(metadata: object, fields: Fields) -> list[Reference]:
    """Return the references in an object or a list of objects; either may be a JSON text.

    An unreadable JSON text counts as a placeholder, because it may be a remark in brackets.
    """
    # Nearly all metadata is an object that holds no reference.
    if type(metadata) is dict and fields.heads.isdisjoint(metadata):
        return []
    if isinstance(metadata, str):
        metadata = _value_in(metadata)
        if metadata is _UNREADABLE:
            return [("metadata", "")]
    if isinstance(metadata, list):
        objects = [each for each in metadata if isinstance(each, dict)]
        return [each for holder in objects for each in references(holder, fields)]
    return references(metadata, fields) if isinstance(metadata, dict) else []


def _value_in(text: str) -> object:
    """Return the value of a JSON text; if that value is a text, read it as a JSON text again.

    For a text that is not JSON, return ``_UNREADABLE`` if the text begins like an object or a list,
    and otherwise ``None``.
    """
    try:
        value = decode_json(text.encode())
    except MalformedJsonError:
        return _UNREADABLE if text.lstrip().startswith(("{", "[")) else None
    return _value_in(value) if isinstance(value, str) else value


def _value_at(holder: object, steps: list[str]) -> object:
    for done, name in enumerate(steps):
        if isinstance(holder, str):
            holder = _value_in(holder)
        if not isinstance(holder, dict | list):
            return holder if holder is _UNREADABLE else None
        if steps[done:] == ["id"]:
            # ``_text`` reads the ``id`` later. So an element of a list may also be the id itself,
            # and an element that has no id is unusable, not missing.
            return holder
        if isinstance(holder, list):
            return [_value_at(each, steps[done:]) for each in holder]
        holder = holder.get(name)
    return holder


def _one_of(value: object) -> object:
    """Return the only distinct element of a list; return a value that is not a list unchanged.

    Elements that are ``None`` are left out. If the elements of a list differ, the list is returned.
    If a list has no elements, ``None`` is returned.
    """
    if not isinstance(value, list):
        return value
    elements = [each for each in map(_one_of, value) if each is not None]
    texts = {_text(each) for each in elements}
    return elements[0] if len(texts) == 1 else elements or None


def _text(value: object) -> str | None:
    """Return the reference in a text, an integer, or an object's ``id``; see ``Reference``."""
    if isinstance(value, dict):
        value = value.get("id")
    if isinstance(value, str):
        return "" if is_placeholder(value) else value
    return str(value) if type(value) is int else None
