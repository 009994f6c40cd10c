"""Generates the schemas (JSON Schema 2020-12) of the published records from their types.

A schema never forbids unknown fields, because programs downstream ignore them. Apart from
``$defs``, all keywords exist in draft 07 too, which AsyncAPI's own schemas use.
"""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ledger.journal import Entry
from ledger.orders import OrderDocument
from ledger.rejected import PutBackHeaders, RejectionHeaders

Json = dict[str, Any]

# The version of each topic's schema. A new version gets its own file; see docs/events/README.md.
VERSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {"ledger.orders": 1, "ledger.entries": 1, "plexy.rejected": 1}
)
_TYPES: Final[Mapping[str, tuple[type[msgspec.Struct], ...]]] = MappingProxyType(
    {
        "ledger.orders": (OrderDocument,),
        "ledger.entries": (Entry,),
        "plexy.rejected": (RejectionHeaders, PutBackHeaders),
    }
)
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_file(topic: str) -> str:
    """Return the name of the file with a topic's schema.

    >>> schema_file("ledger.orders")
    'ledger.orders.v1.schema.json'
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
    """Return a schema whose description, a docstring, is formatted as Markdown."""
    return part | {"description": inspect.cleandoc(part["description"]).replace("``", "`")}
