"""Delivers webhooks to ingress as Plexy does; the command ``send`` delivers one event.

Nothing in this module retries a delivery: ``simulate``, which uses this module, makes the retries
itself. No message contains the secret.
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import typer

from cli.errors import DeliveryError, WrongOptionError
from cli.notifications import (
    PAY_PATH,
    bearer_headers,
    build_notification,
    iso_time,
    written_amount,
)
from cli.ports import base_url
from cli.settings import DEVELOPMENT_SECRET, WEBHOOK_PATH, SendSettings
from ledger.signature import SignedForm, sign
from runtime.trust import check_secret

# Plexy waits 30 s for an answer.
_ANSWER_WITHIN_S: Final = 30.0


class Answer(msgspec.Struct, frozen=True):
    """The answer of ingress; ``code`` is a problem's stable name, or empty if there is none."""

    status: int
    code: str
    text: str

    @property
    def accepted(self) -> bool:
        """Whether Plexy would regard the delivery as accepted, and not retry it."""
        return 200 <= self.status < 300  # noqa: PLR2004


def build_event(
    event_id: str, kind: str, created_s: int, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an event in Plexy's envelope."""
    return {"id": event_id, "type": kind, "created": created_s, "data": dict(data)}


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the event's body, with the fields in the given order.

    >>> encode(build_event("evt_1", "payment.succeeded", 1, {"id": "pay_1"}))
    b'{"id":"evt_1","type":"payment.succeeded","created":1,"data":{"id":"pay_1"}}'
    """
    return msgspec.json.encode(event)


def signed_headers(
    body: bytes, secret: str, *, at_s: float | None = None, form: SignedForm = SignedForm.BODY
) -> dict[str, str]:
    """Return a delivery's headers, signed with the time ``at_s``; the default is now."""
    timestamp_s = int(time.time() if at_s is None else at_s)
    return {
        "Content-Type": "application/json",
        "Plexy-Signature": sign(body, secret.encode(), timestamp_s, form),
    }


def deliver(client: httpx.Client, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post a body; raise ``DeliveryError`` if there is no answer."""
    try:
        response = client.post(url, content=body, headers=dict(headers), timeout=_ANSWER_WITHIN_S)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DeliveryError(f"{url!r} is not an address to send to: {error}") from error
    except httpx.ConnectError as error:
        raise DeliveryError(
            f"no program listens at {url} ({error}); start an ingress with `plexy-ledger run` or "
            "`plexy-ledger ingest`, or give another address with --url"
        ) from error
    except httpx.HTTPError as error:
        raise DeliveryError(f"{url} did not answer: {type(error).__name__} {error}") from error
    return Answer(
        status=response.status_code, code=problem_code(response.content), text=response.text
    )


def problem_code(content: bytes) -> str:
    """Return the stable name in a problem document, or an empty text for other documents.

    >>> problem_code(b'{"code": "overloaded"}'), problem_code(b"<html>")
    ('overloaded', '')
    """
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return ""
    return str(document.get("code", "")) if isinstance(document, dict) else ""


class EventOptions(msgspec.Struct, frozen=True):
    """The options for the fields of an event; an option that was not given is ``None``."""

    kind: str | None
    payment: str
    order: str | None
    refund: str | None
    amount_minor: int
    currency: str
    event_id: str | None
    created_s: int | None
    further_data: str | None


class SenderIdentity(msgspec.Struct, frozen=True):
    """How the sender authenticates; ``None`` leaves the choice to the settings.

    ``dialect`` is ``sdk`` or ``pay``.
    """

    dialect: str = "sdk"
    secret: str | None = None
    token_file: Path | None = None


def send_event(
    options: EventOptions,
    url: str | None,
    identity: SenderIdentity,
    environment: Mapping[str, str],
) -> bool:
    """Send one event and print the answer; return whether the event was accepted."""
    settings = SendSettings.from_environment(environment)
    if identity.secret:
        check_secret("--secret", identity.secret)
    now_s = int(time.time())
    if identity.dialect == "pay":
        path, body = PAY_PATH, encode(notification_of(options, settings, now_s=now_s))
        headers = bearer_headers(_token(identity, settings))
    else:
        path, body = WEBHOOK_PATH, encode(event_of(options, now_s=now_s))
        headers = _signed(body, identity, settings)
    typer.echo(body.decode())
    if url is None:
        url = base_url(settings.ingest_host, settings.ingest_port) + path
    with httpx.Client(trust_env=False) as client:
        answer = deliver(client, url, body, headers)
    typer.echo(f"{answer.status} {answer.text}")
    return answer.accepted


def _signed(body: bytes, identity: SenderIdentity, settings: SendSettings) -> dict[str, str]:
    timestamped = settings.signed_form is SignedForm.TIMESTAMPED
    form = SignedForm.TIMESTAMPED if timestamped else SignedForm.BODY
    return signed_headers(body, identity.secret or _default_secret(settings), form=form)


def _token(identity: SenderIdentity, settings: SendSettings) -> str:
    if identity.token_file is not None:
        try:
            return identity.token_file.read_text().strip()
        except OSError as error:
            file = identity.token_file
            raise WrongOptionError(f"--token-file {file}: {error.strerror}") from None
    if not settings.pay_tokens:
        raise WrongOptionError(
            "--dialect pay needs a token: name a file with --token-file, or set LEDGER_PAY_TOKENS"
        )
    return settings.pay_tokens[0].reveal()


def notification_of(options: EventOptions, settings: SendSettings, *, now_s: int) -> dict[str, Any]:
    """Return the Pay API's notification for the options; ``further_data`` overrides its fields."""
    if settings.pay_amounts is None:
        raise WrongOptionError(
            "--dialect pay needs LEDGER_PAY_AMOUNTS: set it to minor or major, the same value that "
            "ingress uses"
        )
    if options.event_id is not None:
        raise WrongOptionError("--event-id: a notification of the Pay API has no event id")
    kind = options.kind or ("transaction.refunded" if options.refund else "transaction.charged")
    amount = written_amount(options.amount_minor, options.currency, settings.pay_amounts)
    data: dict[str, Any] = {"id": options.refund or options.payment}
    if options.refund:
        data["parentTransactionId"] = options.payment
    data |= {"amount": amount, "processedAmount": amount, "currency": options.currency}
    data["updatedAt"] = iso_time(now_s if options.created_s is None else options.created_s)
    if options.order:
        data["merchantReference"] = options.order
    return build_notification(
        kind.removeprefix("transaction."), data | _further(options.further_data)
    )


def event_of(options: EventOptions, *, now_s: int) -> dict[str, Any]:
    """Return the event for the options; ``further_data`` overrides the fields of its data.

    >>> options = EventOptions("payment.failed", "pay_1", None, None, 5, "USD", "evt_1", None, None)
    >>> event_of(options, now_s=7)["data"]
    {'id': 'pay_1', 'amount': 5, 'currency': 'USD', 'status': 'failed'}
    """
    data: dict[str, Any] = {"id": options.refund or options.payment}
    if options.refund:
        data["payment_id"] = options.payment
    data |= {"amount": options.amount_minor, "currency": options.currency}
    kind = options.kind or "payment.succeeded"
    data["status"] = kind.rpartition(".")[2]
    if options.order:
        data["merchantReference"] = options.order
    data |= _further(options.further_data)
    event_id = options.event_id or f"evt_{secrets.token_hex(8)}"
    created_s = now_s if options.created_s is None else options.created_s
    return build_event(event_id, kind, created_s, data)


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
