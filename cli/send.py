"""The command ``send``: one signed event to an ingress.

In: an event's fields as options. Out: the body that was sent and what was answered, on standard
output; whether it was accepted.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import typer

from cli.errors import WrongOptionError
from cli.local import DEVELOPMENT_SECRET, WEBHOOK_PATH
from cli.ports import base_url
from cli.sender import build_event, deliver, encode, signed_headers
from cli.settings import SendSettings
from ledger.signature import SignedForm


class EventOptions(msgspec.Struct, frozen=True):
    """An event as the options have it; ``None`` where an option was not given."""

    kind: str
    payment: str
    order: str | None
    refund: str | None
    amount_minor: int
    currency: str
    event_id: str | None
    created_s: int | None
    further_data: str | None


def send_event(
    options: EventOptions, url: str | None, secret: str | None, environment: Mapping[str, str]
) -> bool:
    """Send one event and print the answer; return whether it was accepted."""
    settings = SendSettings.from_environment(environment)
    body = encode(event_of(options, now_s=int(time.time())))
    timestamped = settings.signed_form is SignedForm.TIMESTAMPED
    form = SignedForm.TIMESTAMPED if timestamped else SignedForm.BODY
    headers = signed_headers(body, secret or _default_secret(settings), form=form)
    typer.echo(body.decode())
    if url is None:
        url = base_url(settings.ingest_host, settings.ingest_port) + WEBHOOK_PATH
    with httpx.Client(trust_env=False) as client:
        answer = deliver(client, url, body, headers)
    typer.echo(f"{answer.status} {answer.text}")
    return answer.accepted


def event_of(options: EventOptions, *, now_s: int) -> dict[str, Any]:
    """Return the event that the options describe; further data wins over them.

    >>> options = EventOptions("payment.failed", "pay_1", None, None, 5, "USD", "evt_1", None, None)
    >>> event_of(options, now_s=7)["data"]
    {'id': 'pay_1', 'amount': 5, 'currency': 'USD', 'status': 'failed'}
    """
    data: dict[str, Any] = {"id": options.refund or options.payment}
    if options.refund:
        data["payment_id"] = options.payment
    data |= {"amount": options.amount_minor, "currency": options.currency}
    data["status"] = options.kind.rpartition(".")[2]
    if options.order:
        data["merchantReference"] = options.order
    data |= _further(options.further_data)
    event_id = options.event_id or f"evt_{secrets.token_hex(8)}"
    created_s = now_s if options.created_s is None else options.created_s
    return build_event(event_id, options.kind, created_s, data)


def _default_secret(settings: SendSettings) -> str:
    return settings.webhook_secrets[0].reveal() if settings.webhook_secrets else DEVELOPMENT_SECRET


def _further(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise WrongOptionError(
            f"--data: expected a JSON object, got {text!r:.200}: {error}"
        ) from None
