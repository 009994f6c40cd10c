"""What may change in a schema that was released, without a new version.

In: a topic's schema as it was released, and as the types say it now. Out: what changed that may
not, each as a sentence. Both directions matter. Programs that were written for the released schema
read what is written now: nothing that they know may go, or become something else. And topics keep
what was written before: the schema of now must hold for it, so nothing may become required. What is
left is an optional field more, and other words.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeGuard

Json = dict[str, Any]

_WORDS: Final = frozenset({"title", "description", "examples", "$comment"})
_SETS: Final = frozenset({"required", "enum"})


def breaking_changes(released: Json, now: Json) -> list[str]:
    """Return what a reader of the released schema, or of older records, would stumble over.

    >>> breaking_changes({"type": "string"}, {"type": "integer"})
    ["$.type was 'string' and is 'integer'"]
    """
    return list(_differences("$", _inlined(released, released), _inlined(now, now)))


def _inlined(node: Any, document: Json) -> Any:
    """Return a schema with what it refers to in the place of each reference; names don't matter."""
    if isinstance(node, list):
        return [_inlined(each, document) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(document["$defs"][node["$ref"].removeprefix("#/$defs/")], document)
    return {name: _inlined(each, document) for name, each in node.items() if name != "$defs"}


def _differences(path: str, released: Json, now: Json) -> Iterator[str]:
    for keyword in sorted((released.keys() | now.keys()) - _WORDS):
        here = f"{path}.{keyword}"
        before, after = released.get(keyword), now.get(keyword)
        if keyword == "properties":
            yield from _fields(path, before or {}, after or {})
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(here, before, after)
        elif _are_schemas(before) and _are_schemas(after) and len(before) == len(after):
            for number, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from _differences(f"{here}[{number}]", one, other)
        elif (
            before is None or after is None or _ordered(keyword, before) != _ordered(keyword, after)
        ):
            yield f"{here} was {_shown(before)} and is {_shown(after)}"


def _fields(path: str, released: Json, now: Json) -> Iterator[str]:
    for name, schema in released.items():
        if name in now:
            yield from _differences(f"{path}.{name}", schema, now[name])
        else:
            yield f"{path}.{name} is gone"


def _are_schemas(value: Any) -> TypeGuard[list[Json]]:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _ordered(keyword: str, value: Any) -> Any:
    return sorted(value, key=repr) if keyword in _SETS else value


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)
