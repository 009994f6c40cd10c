"""A sender like Plexy: builds an event, signs it, delivers it over HTTP.

In: an event's fields, a secret, an address. Out: the answer of the ingress. Never: a retry (Plexy's
own are part of what is simulated, and are sent as such), and never the secret in a message.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from cli.errors import DeliveryError
from ledger.signature import SignedForm, sign

# Plexy waits 30 s for an answer.
_ANSWER_WITHIN_S: Final = 30.0


class Answer(msgspec.Struct, frozen=True):
    """What the ingress answered; ``code`` is the problem's stable name, empty if there is none."""

    status: int
    code: str
    text: str

    @property
    def accepted(self) -> bool:
        """Whether Plexy would count the delivery as done."""
        return 200 <= self.status < 300  # noqa: PLR2004


def build_event(
    event_id: str, kind: str, created_s: int, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an event as Plexy's envelope has it."""
    return {"id": event_id, "type": kind, "created": created_s, "data": dict(data)}


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the event's body, fields in the order given.

    >>> encode(build_event("evt_1", "payment.succeeded", 1, {"id": "pay_1"}))
    b'{"id":"evt_1","type":"payment.succeeded","created":1,"data":{"id":"pay_1"}}'
    """
    return msgspec.json.encode(event)


def signed_headers(
    body: bytes, secret: str, *, at_s: float | None = None, form: SignedForm = SignedForm.BODY
) -> dict[str, str]:
    """Return the headers of a delivery, signed as of now or of the Unix time ``at_s``."""
    timestamp_s = int(time.time() if at_s is None else at_s)
    return {
        "Content-Type": "application/json",
        "Plexy-Signature": sign(body, secret.encode(), timestamp_s, form),
    }


def deliver(client: httpx.Client, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post a body; ``DeliveryError`` if nobody answers."""
    try:
        response = client.post(url, content=body, headers=dict(headers), timeout=_ANSWER_WITHIN_S)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DeliveryError(f"{url!r} is not an address to send to: {error}") from error
    except httpx.ConnectError as error:
        raise DeliveryError(
            f"nobody listens at {url} ({error}); start an ingress with `plexy-ledger run` or "
            "`plexy-ledger ingest`, or name another address with --url"
        ) from error
    except httpx.HTTPError as error:
        raise DeliveryError(f"{url} did not answer: {type(error).__name__} {error}") from error
    return Answer(
        status=response.status_code, code=problem_code(response.content), text=response.text
    )


def problem_code(content: bytes) -> str:
    """Return the stable name in a problem document; empty if it is none.

    >>> problem_code(b'{"code": "overloaded"}'), problem_code(b"<html>")
    ('overloaded', '')
    """
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return ""
    return str(document.get("code", "")) if isinstance(document, dict) else ""
