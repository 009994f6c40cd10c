"""A lenient validator of the published schemas for readers, and a strict validator for writers."""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from cli.contract.schemas import schema_of


def reader(topic: str) -> Draft202012Validator:
    """Return the validator that a downstream program uses."""
    return Draft202012Validator(schema_of(topic))


def writer(topic: str) -> Draft202012Validator:
    """Return a validator that also refuses fields unknown to the schema."""
    return Draft202012Validator(closed(schema_of(topic)))


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    more = {"additionalProperties": False} if "properties" in schema else {}
    return {**{name: closed(each) for name, each in schema.items()}, **more}


def texts(headers: list[tuple[str, bytes]] | tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """Return a record's headers as the schema describes them; each name must occur only once."""
    named = {name: value.decode() for name, value in headers}
    assert len(named) == len(headers), headers
    return named
