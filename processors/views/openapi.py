"""``GET /openapi.json``: every view with its parameters and answers, in OpenAPI 3.1.

The document is built once, from the types of the answers. A test compares the document with a
worker's answers for every view.
"""

from importlib.metadata import version
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.anomalies import ANY_ANOMALY
from ledger.orders import OrderDocument
from ledger.payment_documents import PlacedPayment
from ledger.rejections import Reason
from ledger.verification.proof import Proof
from ledger.verification.replicas import AllTables, WorkerTables
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import json_answer
from processors.views.balances import Balances
from processors.views.listed import ANOMALIES, STATUSES, OrderList
from processors.views.orders import OrderEvents
from processors.views.overview import MOST_WATCHERS, Overview
from processors.views.payments import OrderPayments, PaymentEvents
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
    PaymentEvents,
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
            "summary": "The state of orders, payments and events, from any worker.",
            "description": "An id may contain any character. A slash in an id may stay unencoded, "
            "except before `events`, `payments`, `proof` and `places` (`%2F`). Amounts are in "
            "minor units. A 503 is temporary: `Retry-After` says when to ask again.",
        },
        "security": [{"token": []}, {}],
        "paths": _paths(),
        "components": {"schemas": dict(schemas), "securitySchemes": {"token": security}},
    }


def _paths() -> Json:
    tagged = (_header("If-None-Match", "an earlier answer's entity tag; 304 if it is current"),)
    waits = (
        _text("event", "wait until this event is folded, and answer then"),
        _text("wait", f"the longest wait, as 5s or 500ms; up to {parameters.LONGEST_WAIT_S:g} s"),
    )
    raw = _choice("raw", ("true", "false"), "whether to include each delivery's headers and bytes")
    cursor = _text("cursor", "the `cursor` of the previous page")
    limit: Json = _text("limit", "the maximum number of entries")
    limit["schema"] = {"type": "integer", "minimum": 1, "maximum": parameters.MOST_ITEMS}
    return {
        "/orders": _get(
            "All orders, the latest change first; with `anomaly`, the latest event first",
            OrderList,
            _choice("status", STATUSES, "only orders with this status"),
            _choice("anomaly", (ANY_ANOMALY, *ANOMALIES), "only orders with this anomaly"),
            _text(
                "since",
                "a time, as RFC 3339 or Unix seconds: only orders that changed since then; with "
                "`anomaly`, only orders whose latest event is not older than this time",
            ),
            _choice("scope", SCOPES, "`worker`: only this worker's orders; needs `anomaly`"),
            cursor,
            limit,
        ),
        "/orders/{order_id}": _get(
            "One order, now or as of a time",
            OrderDocument,
            _path("order_id"),
            _text("as_of", "show the state at this past time: RFC 3339, or Unix seconds"),
            *waits,
            *tagged,
            missing=True,
            reads_log=True,
            waits=True,
        ),
        "/orders/{order_id}/events": _get(
            "Every delivery that names an order or its payments, with its outcome",
            OrderEvents,
            _path("order_id"),
            raw,
            missing=True,
            reads_log=True,
        ),
        "/orders/{order_id}/payments": _get(
            "An order's payments by their ids, including those that its document does not list",
            OrderPayments,
            _path("order_id"),
            cursor,
            limit,
            missing=True,
        ),
        "/orders/{order_id}/proof": _get(
            "One file with all evidence for an order, which `plexy-ledger prove` checks",
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
        "/payments/{payment_id}/events": _get(
            "Every delivery that names a payment, with its outcome",
            PaymentEvents,
            _path("payment_id"),
            raw,
            missing=True,
            reads_log=True,
        ),
        "/events/{event_id}": _get(
            "An event's outcome, and all of its deliveries",
            Story,
            _path("event_id"),
            raw,
            missing=True,
        ),
        "/events/{event_id}/places": _get(
            "The places of an event's deliveries in the log of record",
            EventPlaces,
            _path("event_id"),
            missing=True,
        ),
        "/balances": _get(
            "Every account's balance, by currency",
            Balances,
            _choice("days", ("true", "false"), "whether to include the amounts of each day"),
            _choice("scope", SCOPES, "`worker`: only this worker's partitions"),
        ),
        "/rejected": _get(
            "The items that were kept but are not counted, the newest first",
            RejectedList,
            _choice("state", STATES, "only items in this state"),
            _choice("reason", tuple(map(str, Reason)), "only items with this reason"),
            cursor,
            limit,
        ),
        "/overview": _get(
            "The state of the ledger: workers, counts, lag, totals, anomalies",
            Overview,
            _choice("scope", SCOPES, "`worker`: only this worker's part"),
        ),
        "/tables": _get(
            "The table partitions on each worker's disk, with a digest of their rows",
            (AllTables, WorkerTables),
            _choice("scope", SCOPES, "`worker`: only this worker's entry"),
            _choice("scrub", ("true", "false"), "whether to start a scrub of the workers' tables"),
        ),
        "/live": _live(),
        "/openapi.json": _get("This description", None),
        "/metrics": _metrics(),
        "/healthz": {"get": _open("The process is alive")},
        "/readyz": {
            "get": _open(
                "The tables are recovered, the partitions are this worker's, and no record is lost"
            )
        },
    }


def _get(
    summary: str,
    kind: type | tuple[type, ...] | None,
    *given: Json,
    missing: bool = False,
    waits: bool = False,
    reads_log: bool = False,
) -> Json:
    content = {"application/json": {"schema": _schema(kind)}}
    answers: Json = {
        "200": {"description": "The answer.", "content": content},
        "400": _problem("A parameter is wrong; `field` names the parameter"),
        "401": _problem("The bearer token is missing or wrong"),
        "500": _problem("A bug; or, for a proof, the order contradicts the log"),
        "503": _problem("Temporary: a rebalance, a recovery of tables, or no answer from Kafka"),
    }
    if any(each["name"] == "If-None-Match" for each in given):
        answers["304"] = {"description": "The answer with the tag in `If-None-Match` is current."}
    if missing:
        answers["404"] = _problem("Nothing with this id exists")
    if reads_log:
        answers["413"] = _problem(
            "The order has more payments or deliveries than this answer holds"
        )
    if waits:
        answers["409"] = _problem("The answer will never contain the event; `detail` says why")
        answers["504"] = _problem("The event was not folded in time; `detail` says where it is")
    return {"get": {"summary": summary, "parameters": list(given), "responses": answers}}


def _schema(kind: type | tuple[type, ...] | None) -> Json:
    if isinstance(kind, tuple):
        return {"anyOf": [_schema(each) for each in kind]}
    return {"$ref": f"#/components/schemas/{kind.__name__}"} if kind else {"type": "object"}


def _live() -> Json:
    """Describe the stream: each event's data is an overview."""
    summary = f"The overview each second, as server-sent events, for up to {MOST_WATCHERS} readers"
    page = _get(summary, Overview)
    answer = page["get"]["responses"]["200"]
    answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return page


def _open(summary: str) -> Json:
    """Describe a probe, which needs no token."""
    page: Json = _get(summary, None)["get"]
    return {**page, "security": [{}]}


def _metrics() -> Json:
    page: Json = _get("The metrics for Prometheus", None)["get"]
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
