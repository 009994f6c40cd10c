"""Finds the changes to a released schema that need a new version.

Both directions matter. Programs that were written for the released schema read new records, so no
known field may disappear or change its meaning. Topics keep old records, which the new schema must
also accept, so no field may become required. The only allowed changes are new optional fields and
new wording.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeGuard

Json = dict[str, Any]

_WORDS: Final = frozenset({"title", "description", "examples", "$comment"})
_SETS: Final = frozenset({"required", "enum"})


def breaking_changes(released: Json, now: Json) -> list[str]:
    """Return the changes that break readers of the released schema, or of older records.

    >>> breaking_changes({"type": "string"}, {"type": "integer"})
    ["$.type was 'string' and is 'integer'"]
    """
    return list(_differences("$", _inlined(released, released), _inlined(now, now)))


def _inlined(node: Any, document: Json) -> Any:
    """Return a schema with each reference replaced by its target, so that names don't matter."""
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
