"""The reference of the HTTP interfaces: one page for each service, made from its OpenAPI document.

Input: an OpenAPI 3.1 document, as the service publishes it. Output: a page in Markdown, with a
section for each operation and a table for each type. Everything that a page says about an answer
comes from the document.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ingest.openapi import describe as describe_ingress
from ingest.settings import IngestSettings
from processors.views.openapi import describe as describe_views
from website.markdown import table

Json = Mapping[str, Any]

# With a token, the document has the path of the Pay API too.
_SETTINGS: Final = {
    "LEDGER_WEBHOOK_SECRETS": "whsec_documented",
    "LEDGER_PAY_TOKENS": "token_documented",
    "LEDGER_PAY_AMOUNTS": "minor",
}

_GUIDE: Final = "[HTTP](../http.md) explains requests, and the remedies for errors."


def ingress() -> str:
    """Return the page of ingress with default settings."""
    return page(describe_ingress(IngestSettings.from_environment(_SETTINGS)))


def views() -> str:
    """Return the page of the views."""
    return page(describe_views())


def page(document: Json) -> str:
    """Return the page of a document."""
    info = document["info"]
    title = info["title"].removeprefix("plexy-ledger ").capitalize()
    operations = [
        line
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for line in _operation(f"{method.upper()} {path}", operation)
    ]
    types = [
        line
        for name, schema in document["components"]["schemas"].items()
        for line in _type(name, schema)
    ]
    lines = [
        *(f"# {title} over HTTP", "", f"{info['summary']} {info['description']}"),
        *("", f"{_GUIDE} For programs, `GET /openapi.json` returns the same in OpenAPI 3.1."),
        *operations,
        *("", "## Types", *types),
    ]
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Json) -> Iterator[str]:
    # A probe's only security requirement is the empty one.
    open_to_all = " Needs no token." if operation.get("security") == [{}] else ""
    yield from ("", f"## {title}", "", f"{operation['summary']}.{open_to_all}")
    if given := operation.get("parameters"):
        yield from table(
            ("Parameter", "In", "Value", "Meaning"),
            [
                (f"`{each['name']}`", each["in"], _value(each["schema"]), _meaning(each))
                for each in given
            ],
        )
    if body := operation.get("requestBody"):
        yield from ("", f"Body: {_content(body)}: {body['description']}.")
    yield from table(
        ("Status", "Answer", "Meaning"),
        [
            (status, _content(answer), _answer_meaning(answer))
            for status, answer in sorted(operation["responses"].items())
        ],
    )


def _meaning(parameter: Json) -> str:
    required = "; required" if parameter.get("required") else ""
    return f"{parameter.get('description', 'the id')}{required}"


def _answer_meaning(answer: Json) -> str:
    headers = [
        f"`{name}`: {header['description']}" for name, header in answer.get("headers", {}).items()
    ]
    return "; ".join([answer["description"].removesuffix("."), *headers])


def _content(answer: Json) -> str:
    """Return the types of a body in words; JSON needs no mention of its media type."""
    return ", ".join(
        _value(content["schema"]) if kind.endswith("json") else f"`{kind}`"
        for kind, content in answer.get("content", {}).items()
    )


def _type(name: str, schema: Json) -> Iterator[str]:
    yield from ("", f"### {name}", "", " ".join(schema["description"].split()))
    if "properties" not in schema:
        yield from ("", _value(schema))
        return
    required = schema.get("required", ())
    yield from table(
        ("Field", "Value", "Meaning"),
        [
            (
                f"`{field}`",
                _value(value) + ("" if field in required else ", may be absent"),
                value.get("description", ""),
            )
            for field, value in schema["properties"].items()
        ],
    )


def _value(schema: Json) -> str:  # noqa: C901, PLR0911, PLR0912 - a case for each form of schema
    """Return the values that a schema allows, in words; a type's name links to its table."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"allOf": [one]}:
            return _value(one)
        case {"anyOf": kinds}:
            return " or ".join(map(_value, kinds))
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{str(value).lower()}`"
        case {"prefixItems": kinds}:
            return f"list of {', '.join(map(_value, kinds))}"
        case {"type": "array", "items": items}:
            return f"list of {_value(items)}"
        case {"type": "object", "properties": fields}:
            return ", ".join(f"`{name}`: {_value(value)}" for name, value in fields.items())
        case {"type": "object", "additionalProperties": dict(value)}:
            return f"object, each value: {_value(value)}"
        case {"type": "integer", "minimum": least, "maximum": most}:
            return f"integer, {least} to {most}"
        case {"contentEncoding": encoding}:
            return f"string, {encoding}"
        case {"type": [*kinds]}:
            return " or ".join(kinds)
        case {"type": str(kind)}:
            return kind
        case {"default": None}:
            return "any value"
    raise ValueError(f"no words for the schema {schema!r:.200}: add them to website/api.py")
