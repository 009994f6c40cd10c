"""``GET /openapi.json``: every view with its parameters and answers, in OpenAPI 3.1.

In: the types that answers are made of. Out: one document, made at the start. A test asks a worker
for all of it, and compares.
"""

from importlib.metadata import version
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.anomalies import ANY_ANOMALY
from ledger.orders import OrderDocument
from ledger.payments import PlacedPayment
from ledger.rejections import Reason
from ledger.verification.proof import Proof
from ledger.verification.replicas import AllTables
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import json_answer
from processors.views.balances import Balances
from processors.views.listed import ANOMALIES, STATUSES, OrderList
from processors.views.order_payments import OrderPayments
from processors.views.orders import OrderEvents
from processors.views.overview import MOST_WATCHERS, Overview
from processors.views.rejections import STATES, RejectedList
from processors.views.state import EventPlaces
from processors.views.stories import Story
from processors.views.workers import SCOPES
from runtime.problems import MEDIA_TYPE, Problem

Json = dict[str, Any]

_TYPES: Final = (
    OrderDocument,
    PlacedPayment,
    OrderEvents,
    OrderPayments,
    Proof,
    Story,
    EventPlaces,
    OrderList,
    RejectedList,
    Balances,
    AllTables,
    Overview,
    Problem,
)


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""
    document = msgspec.json.encode(describe())

    @app.page("/openapi.json")
    async def get_openapi(_view: View, _request: Request) -> Any:
        """Return this description."""
        return json_answer(document)


def describe() -> Json:
    """Return the document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    security = {"type": "http", "scheme": "bearer", "description": "LEDGER_API_TOKEN, if it is set"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "plexy-ledger views",
            "version": version("plexy-ledger"),
            "summary": "What became of orders, payments and events, from any worker.",
            "description": "Ids may hold any character; a slash in one may stay as it is, but "
            "before `events`, `payments`, `proof` and `places` it is encoded (`%2F`). Amounts are "
            "in minor units. A 503 is of a moment: `Retry-After` says when to ask again.",
        },
        "security": [{"token": []}, {}],
        "paths": _paths(),
        "components": {"schemas": dict(schemas), "securitySchemes": {"token": security}},
    }


def _paths() -> Json:
    tagged = (_header("If-None-Match", "the entity tag of what is known; 304 if it is still so"),)
    waits = (
        _text("event", "wait until this event is folded, and answer then"),
        _text("wait", f"how long, as 5s or 500ms; {parameters.LONGEST_WAIT_S:g} s at most"),
    )
    raw = _choice(
        "raw", ("true", "false"), "whether each delivery's headers and bytes are among it"
    )
    cursor = _text("cursor", "the `cursor` of the page before")
    limit: Json = _text("limit", "how many to list")
    limit["schema"] = {"type": "integer", "minimum": 1, "maximum": parameters.MOST_ITEMS}
    return {
        "/orders": _get(
            "The orders of all workers, the latest change first; by anomaly, the latest event",
            OrderList,
            _choice("status", STATUSES, "orders of this status alone"),
            _choice("anomaly", (ANY_ANOMALY, *ANOMALIES), "orders with this anomaly alone"),
            _text(
                "since",
                "orders that changed, by anomaly those whose latest event was, since a time: "
                "RFC 3339, or Unix seconds",
            ),
            _choice("scope", SCOPES, "`worker`: with `anomaly`, orders of the one asked"),
            cursor,
            limit,
        ),
        "/orders/{order_id}": _get(
            "One order, now or as of a time",
            OrderDocument,
            _path("order_id"),
            _text("as_of", "as what had arrived by then: RFC 3339, or Unix seconds"),
            *waits,
            *tagged,
            missing=True,
            reads_log=True,
            waits=True,
        ),
        "/orders/{order_id}/events": _get(
            "Every delivery of an order's events, and what became of it",
            OrderEvents,
            _path("order_id"),
            raw,
            missing=True,
            reads_log=True,
        ),
        "/orders/{order_id}/payments": _get(
            "An order's payments, by their ids, also those that its document does not list",
            OrderPayments,
            _path("order_id"),
            cursor,
            limit,
            missing=True,
        ),
        "/orders/{order_id}/proof": _get(
            "One file with all that an order follows from, for `plexy-ledger prove`",
            Proof,
            _path("order_id"),
            missing=True,
            reads_log=True,
        ),
        "/payments/{payment_id}": _get(
            "One payment, with the order that it belongs to",
            PlacedPayment,
            _path("payment_id"),
            *waits,
            *tagged,
            missing=True,
            waits=True,
        ),
        "/events/{event_id}": _get(
            "What became of an event, and every delivery of it",
            Story,
            _path("event_id"),
            raw,
            missing=True,
        ),
        "/events/{event_id}/places": _get(
            "Where an event's deliveries are in the log of record",
            EventPlaces,
            _path("event_id"),
            missing=True,
        ),
        "/balances": _get(
            "Every account's balance, by currency",
            Balances,
            _choice("days", ("true", "false"), "whether what was posted each day is among it"),
            _choice("scope", SCOPES, "`worker`: the partitions of the one asked"),
        ),
        "/rejected": _get(
            "What was kept and is not counted, the newest first",
            RejectedList,
            _choice("state", STATES, "items in this state alone"),
            _choice("reason", tuple(map(str, Reason)), "items of this reason alone"),
            cursor,
            limit,
        ),
        "/overview": _get(
            "How the ledger is: workers, counts, lag, totals, anomalies",
            Overview,
            _choice("scope", SCOPES, "`worker`: what the one asked has"),
        ),
        "/tables": _get(
            "What each worker's disk holds of the tables, with a digest of its rows",
            AllTables,
            _choice("scope", SCOPES, "`worker`: what the one asked has, as its entry alone"),
            _choice(
                "scrub", ("true", "false"), "whether the disks are read as a whole, soon after"
            ),
        ),
        "/live": _live(),
        "/openapi.json": _get("This description", None),
        "/metrics": _metrics(),
        "/healthz": {"get": _open("The process is alive")},
        "/readyz": {
            "get": _open(
                "The tables are recovered, the partitions are the worker's, and no record is lost"
            )
        },
    }


def _get(
    summary: str,
    kind: type | None,
    *given: Json,
    missing: bool = False,
    waits: bool = False,
    reads_log: bool = False,
) -> Json:
    schema: Json = {"$ref": f"#/components/schemas/{kind.__name__}"} if kind else {"type": "object"}
    answers: Json = {
        "200": {"description": "It is so.", "content": {"application/json": {"schema": schema}}},
        "400": _problem("A parameter is wrong: `field` names it"),
        "401": _problem("The bearer token is missing or wrong"),
        "500": _problem("A bug; of a proof, that the order is not what follows from the log"),
        "503": _problem("Not now: partitions move, tables are recovered, Kafka does not answer"),
    }
    if any(each["name"] == "If-None-Match" for each in given):
        answers["304"] = {"description": "It is still what `If-None-Match` names."}
    if missing:
        answers["404"] = _problem("There is none of this id")
    if reads_log:
        answers["413"] = _problem(
            "The order has more payments or deliveries than this answer holds"
        )
    if waits:
        answers["409"] = _problem("The event will never be in this; `detail` says why")
        answers["504"] = _problem("The event was not folded in time; `detail` says where it is")
    return {"get": {"summary": summary, "parameters": list(given), "responses": answers}}


def _live() -> Json:
    """Describe the stream: each event's data is an overview."""
    summary = (
        f"The overview each second, as server-sent events, for {MOST_WATCHERS} readers at most"
    )
    page = _get(summary, Overview)
    answer = page["get"]["responses"]["200"]
    answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return page


def _open(summary: str) -> Json:
    """Describe a probe: it needs no token."""
    page: Json = _get(summary, None)["get"]
    return {**page, "security": [{}]}


def _metrics() -> Json:
    page: Json = _get("What Prometheus reads", None)["get"]
    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"get": {**page, "responses": {**page["responses"], "200": text}}}


def _problem(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _header(name: str, description: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string"},
    }


def _text(name: str, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}


def _choice(name: str, allowed: tuple[str, ...], description: str) -> Json:
    return {**_text(name, description), "schema": {"enum": list(allowed)}}
