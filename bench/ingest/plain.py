"""Implements the plain handler, with which the benchmark compares ingress.

The code follows the documentation of Starlette and aiokafka. Each request carries one delivery. The
handler answers 200 once an idempotent producer has the acknowledgements of all in-sync replicas.
Wherever possible, the handler saves work. It accepts only one form of signature, and reads no field
of the envelope except the id. It writes no log lines, and has no limits of its own.
"""

import hmac
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

SECRET = os.environ.get("BENCH_SECRET", "").encode()
TOPIC = os.environ.get("BENCH_TOPIC", "")
TOLERANCE_S = 300


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep a producer open while the application runs."""
    async with AIOKafkaProducer(
        bootstrap_servers=os.environ["BENCH_BOOTSTRAP"], acks="all", enable_idempotence=True
    ) as producer:
        app.state.producer = producer
        yield


async def receive(request: Request) -> JSONResponse:
    """Append one delivery to the log, and acknowledge it."""
    body = await request.body()
    signature = request.headers.get("plexy-signature", "")
    if not verified(signature, body):
        return JSONResponse({"error": "the signature is not good"}, status_code=401)
    event = json.loads(body)
    await request.app.state.producer.send_and_wait(
        TOPIC,
        body,
        key=event["id"].encode(),
        headers=[
            ("plexy-signature", signature.encode()),
            ("received-at-ms", str(int(time.time() * 1000)).encode()),
            ("content-type", request.headers.get("content-type", "").encode()),
        ],
    )
    return JSONResponse({"received": True})


def verified(header: str, body: bytes) -> bool:
    """Return whether a signature fits this body and is recent."""
    fields = dict(part.strip().partition("=")[::2] for part in header.split(","))
    expected = hmac.new(SECRET, body, "sha256").hexdigest()
    right = hmac.compare_digest(expected, fields.get("v1", ""))
    return right and abs(time.time() - int(fields["t"])) <= TOLERANCE_S


app = Starlette(routes=[Route("/webhooks/plexy", receive, methods=["POST"])], lifespan=lifespan)
