"""Serves ``GET /openapi.json``, which describes every path and every possible answer.

Input: the types that decode deliveries, and the table of problems from which answers are made.
Output: one document in OpenAPI 3.1, built at start-up. Invariant: the document has exactly the
answers of ``answers.STATUS``, because it is built from that table.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ingest.answers import HEADERS, STATUS
from ingest.settings import PAY_PATH, WEBHOOKS_PATH, IngestSettings
from ledger.envelope import Envelope
from ledger.pay import Notification
from ledger.signature import SignatureFault
from runtime.problems import MEDIA_TYPE, Problem

Json = dict[str, Any]

# The codes of the answers that the server gives before a request reaches a path, and of the answers
# common to all paths.
_ANYWHERE: Final = ("malformed_request", "head_too_large", "method_not_allowed", "internal_error")
_TOKEN: Final = ("token_missing", "token_mismatch")
_SIGNATURE: Final = tuple(str(fault) for fault in SignatureFault)
_DELIVERY: Final = tuple(code for code in STATUS if code not in {"not_found", *_TOKEN})
_NOTIFICATION: Final = tuple(code for code in STATUS if code not in {"not_found", *_SIGNATURE})

_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Plexy-Signature": "`t=<Unix seconds>,v1=<hex HMAC-SHA256>`; the key is the endpoint's "
        "signing secret, and the signed content is the raw body, or `<t>.<raw body>`",
        "retry-after": "the seconds to wait before delivering again",
        "allow": "the methods that the path allows",
        "www-authenticate": "the header that is missing or wrong",
        "connection": "the connection accepts no more requests",
    }
)


class Document:
    """The endpoint of the document, which never changes while the program runs."""

    def __init__(self, settings: IngestSettings) -> None:
        document = msgspec.json.encode(describe(settings))
        self._answer = Response(document, media_type="application/json")

    async def page(self, _request: Request) -> Response:
        """Answer with the document."""
        return self._answer


def describe(settings: IngestSettings) -> Json:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(
        (Envelope, Notification, Problem), ref_template="#/components/schemas/{name}"
    )
    fields = schemas["Envelope"]["properties"]
    # An id may also be an integer, which is read as its decimal text.
    fields["id"] = {"anyOf": [fields["id"], {"type": "integer"}]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "plexy-ledger ingress",
            "version": version("plexy-ledger"),
            "summary": "Takes Plexy's webhooks and keeps them in Kafka.",
            "description": "Any other path is answered 404, with the code `not_found`.",
        },
        "paths": {
            WEBHOOKS_PATH: {"post": _delivery(settings)},
            **({PAY_PATH: {"post": _notification(settings)}} if settings.pay_tokens else {}),
            "/healthz": {"get": _page("The program runs", ())},
            "/readyz": {"get": _page("A delivery could be kept now", ("log_unavailable",))},
            "/openapi.json": {"get": _page("This document", ())},
        },
        "components": {
            "schemas": dict(schemas),
            "responses": {"NotFound": _problems(HTTPStatus.NOT_FOUND, ["not_found"])},
            "securitySchemes": {
                "payToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "one of the merchant's API tokens",
                }
            },
        },
    }


def _delivery(settings: IngestSettings) -> Json:
    signature = {
        "name": "Plexy-Signature",
        "in": "header",
        "required": not settings.allow_unsigned,
        "description": _MEANINGS["Plexy-Signature"],
        "schema": {"type": "string", "maxLength": 4096},
    }
    return {
        "operationId": "deliver",
        "summary": "Take one delivery; answer 200 once every in-sync replica has it",
        "parameters": [signature],
        **_kept(settings, "Envelope", _DELIVERY),
    }


def _notification(settings: IngestSettings) -> Json:
    return {
        "operationId": "notify",
        "summary": "Take one notification of the Pay API, as `/webhooks/plexy` takes a delivery",
        "security": [{"payToken": []}],
        **_kept(settings, "Notification", _NOTIFICATION),
    }


def _kept(settings: IngestSettings, body: str, codes: Iterable[str]) -> Json:
    kept = {"type": "object", "properties": {"received": {"const": True}}, "required": ["received"]}
    place = {
        "description": "the event's place in the log of record: `<partition>:<offset>`",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
    }
    return {
        "requestBody": {
            "required": True,
            "description": f"the event, of at most {settings.max_body_bytes} bytes",
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
        },
        "responses": {
            "200": _json("The delivery is kept.", kept) | {"headers": {"ledger-position": place}},
            **_responses(codes),
        },
    }


def _page(summary: str, codes: Iterable[str]) -> Json:
    return {
        "summary": summary,
        "responses": {
            "200": _json(f"{summary}.", {"type": "object"}),
            **_responses((*codes, *_ANYWHERE)),
        },
    }


def _responses(codes: Iterable[str]) -> Json:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(code)
    return {str(status): _problems(status, by_status[status]) for status in sorted(by_status)}


def _problems(status: int, codes: list[str]) -> Json:
    """Describe the answers of one status: a problem document with one of these codes."""
    names = ["allow"] if status == HTTPStatus.METHOD_NOT_ALLOWED else HEADERS.get(status, {})
    schema = {
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "properties": {"status": {"const": status}, "code": {"enum": codes}},
    }
    answer: Json = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}",
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if names:
        answer["headers"] = {
            name: {"description": _MEANINGS[name], "schema": {"type": "string"}} for name in names
        }
    return answer


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
