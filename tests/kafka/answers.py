"""Writes signed deliveries to the log as ingress does, and sends requests to the views.

The HTTP client is ``http.client``, because this client sends every path unchanged.
"""

import asyncio
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ingest.records import DeliveryHead, json_object, readable_event_id, rejected_delivery_record
from ledger.envelope import decode_envelope
from ledger.rejections import Rejection
from ledger.signature import sign
from runtime.kafka.batches import OutRecord, send_by_key
from tests.kafka.harness import PARTITIONS, names_of, producer, wait_folded

SECRET, OLD_SECRET = "whsec_of_the_tests", "whsec_before_the_tests"
TOKEN = "token_of_the_tests"
PROBLEM = "application/problem+json"
NOW_S = int(time.time())


def event(
    event_id: str, kind: str, payment: str, amount: int, *, created: int = NOW_S, **more: Any
) -> dict[str, Any]:
    data = {"id": payment, "amount": amount, "currency": "KZT", **more}
    return {"id": event_id, "type": kind, "created": created, "data": data}


def paid(event_id: str, payment: str, order: str, amount: int = 500, **more: Any) -> dict[str, Any]:
    more = {"merchantReference": order, **more}
    return event(event_id, "payment.succeeded", payment, amount, **more)


def refunded(event_id: str, refund: str, payment: str, amount: int = 100) -> dict[str, Any]:
    return event(event_id, "refund.succeeded", refund, amount, payment_id=payment)


def signed(
    body: Mapping[str, Any] | bytes,
    *,
    secret: str = SECRET,
    key: str | None = None,
    at_s: float | None = None,
) -> OutRecord:
    """Sign a body, and return the record that ingress writes to the log for it.

    If the body is given as bytes, the caller must also give the record's key.
    """
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    arrived = at_s or time.time()
    headers = [
        ("plexy-signature", sign(raw, secret.encode(), int(arrived)).encode()),
        ("received-at-ms", b"%d" % (arrived * 1000)),
        ("content-type", b"application/json"),
    ]
    event_id = key if isinstance(body, bytes) else str(body["id"])
    return OutRecord(str(event_id).encode(), raw, headers, int(arrived * 1000))


def deliver(env: Mapping[str, str], *bodies: Mapping[str, Any] | bytes, **how: Any) -> None:
    """Sign each body with ``signed`` and the options ``how``; append the records to the log."""

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            records = [signed(body, **how) for body in bodies]
            await send_by_key(client, names_of(env).webhooks, records, PARTITIONS)

    asyncio.run(send())


def refuse(env: Mapping[str, str], body: bytes) -> None:
    """Write a body to ``plexy.rejected``, as ingress does if the body is not a valid envelope."""
    names = names_of(env)
    arrived = DeliveryHead(b"t=1,v1=0", b"application/json", len(body), int(time.time() * 1000))
    rejection = decode_envelope(body)
    assert isinstance(rejection, Rejection)
    event_id = readable_event_id(json_object(body) or {})
    kept = rejected_delivery_record(names, arrived, body, rejection, event_id)

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            record = OutRecord(kept.key, kept.value, kept.headers, kept.timestamp_ms)
            await send_by_key(client, names.rejected, [record], PARTITIONS)

    asyncio.run(send())


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    env: Mapping[str, str],
    path: str,
    *,
    method: str = "GET",
    token: str | None = TOKEN,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request; ``path`` is sent unchanged."""
    connection = http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]), timeout=30)
    headers = {**(headers or {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == PROBLEM
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    assert answer.json["title"]
    assert answer.json["detail"]


def get(env: Mapping[str, str], path: str) -> Any:
    answer = ask(env, path)
    assert answer.status == 200, answer
    return answer.json


def folded(env: Mapping[str, str], *bodies: Any, **more: Any) -> None:
    deliver(env, *bodies, **more)
    wait_folded(env)


def listed(env: Mapping[str, str], query: str) -> list[dict[str, Any]]:
    """Return the orders from all pages of a list."""
    orders: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = get(env, f"/orders?{query}{cursor}")
        orders += page["orders"]
        if page["cursor"] is None:
            return orders
        cursor = f"&cursor={page['cursor']}"
