"""Generates the JSON Schemas (2020-12) of the published records, and compares two versions.

A schema never forbids unknown fields, because the readers of the topics ignore such fields. All
keywords except ``$defs`` also exist in draft 07, the version that AsyncAPI's own schemas use.

A change of a schema may break programs in two ways. First, programs that were written for the
released schema read new records, so no known field may disappear or change its meaning. Second,
topics keep old records, and the new schema must also accept these, so no field may become required.
The only allowed changes are new optional fields and new wording.
"""

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeGuard

import msgspec

from ledger.journal import Entry
from ledger.orders import OrderDocument
from ledger.rejected import PutBackHeaders, RejectionHeaders
from ledger.rule_files import RuleFile

Json = dict[str, Any]

# The version of each topic's schema. A new version gets its own file; see docs/events/README.md.
VERSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {"ledger.orders": 2, "ledger.entries": 1, "plexy.rejected": 1}
)
_TYPES: Final[Mapping[str, tuple[type[msgspec.Struct], ...]]] = MappingProxyType(
    {
        "ledger.orders": (OrderDocument,),
        "ledger.entries": (Entry,),
        "plexy.rejected": (RejectionHeaders, PutBackHeaders),
    }
)
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_WORDS: Final = frozenset({"title", "description", "examples", "$comment"})
_SETS: Final = frozenset({"required", "enum"})


def schema_file(topic: str) -> str:
    """Return the name of the file with a topic's schema.

    >>> schema_file("ledger.orders")
    'ledger.orders.v2.schema.json'
    """
    return f"{topic}.v{VERSIONS[topic]}.schema.json"


def schemas() -> dict[str, Json]:
    """Return every schema, by file name."""
    return {schema_file(topic): schema_of(topic) for topic in VERSIONS}


def schema_of(topic: str) -> Json:
    """Return the schema of a topic's values, or of its headers if the values are raw bytes."""
    kinds = _TYPES[topic]
    _, described = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    parts = {name: _readable(part) for name, part in described.items()}
    head = {"$schema": _DIALECT, "$id": f"urn:plexy-ledger:{topic}:v{VERSIONS[topic]}"}
    if len(kinds) == 1:
        return {**head, **parts.pop(kinds[0].__name__), "$defs": parts}
    return {
        **head,
        "title": "Headers",
        "description": f"The headers of a record of `{topic}`, as text; its value is raw bytes.",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": parts,
    }


def _readable(part: Json) -> Json:
    """Return a schema with its description, which comes from a docstring, as Markdown."""
    return part | {"description": inspect.cleandoc(part["description"]).replace("``", "`")}


def rules_schema() -> Json:
    """Return the JSON Schema of a rule file."""
    return {"$schema": _DIALECT, **msgspec.json.schema(RuleFile)}


def breaking_changes(released: Json, now: Json) -> list[str]:
    """Return the changes that break programs written for ``released``, or that reject old records.

    >>> breaking_changes({"type": "string"}, {"type": "integer"})
    ["$.type was 'string' and is 'integer'"]
    """
    return list(_differences("$", _inlined(released, released), _inlined(now, now)))


def _inlined(node: Any, document: Json) -> Any:
    """Return a schema with each reference replaced by its target; names then do not matter."""
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
        if keyword in released and keyword in now and before == after:
            # The value may be null in both schemas, for example as the default of an optional
            # field.
            continue
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
