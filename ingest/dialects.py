"""Defines the two dialects in which Plexy delivers: each has its path, authentication and format.

Input: a request's headers and body. Output: a problem if the sender is not authenticated, otherwise
the envelope or a rejection. Invariants: secrets and tokens are compared in constant time, and no
answer or record contains a secret or a token.
"""

import hmac
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol, assert_never

from ingest.answers import Headers, ProblemResponse, problem
from ingest.clock import ClockDoubt
from ingest.metrics import DialectName, ProcessCounts
from ingest.records import DeliveryHead, readable_event_id
from ingest.settings import PAY_PATH, WEBHOOKS_PATH, IngestSettings
from ledger.dialects import pay_headers
from ledger.envelope import Envelope, decode_envelope
from ledger.pay import PayAmounts, decode_notification
from ledger.rejections import Rejection
from ledger.signature import SignatureFault, signed_at_s, verify
from ledger.times import LEAST_MILLISECONDS
from runtime.settings import Secret

_BEARER: Final = b"Bearer "
_CHALLENGE: Final = {"www-authenticate": "Bearer"}


class WebhookDialect(Protocol):
    """How the deliveries to one path are authenticated and read."""

    name: DialectName
    path: str
    headers: Sequence[tuple[str, bytes]]
    """The first headers of each record; none if a record begins with a signature instead."""

    def refuse_by_head(self, headers: Headers) -> ProblemResponse | None:
        """Return a problem if the head alone shows that the sender is not authenticated."""

    def refuse(self, delivery: DeliveryHead, body: bytes) -> ProblemResponse | None:
        """Return a problem if the head and the body show that the sender is not authenticated."""

    def read(self, body: bytes) -> Envelope | Rejection:
        """Read the envelope."""

    def event_id(self, fields: dict[str, Any]) -> str | None:
        """Return the event id of a JSON object that is not an envelope, if the id is readable."""


class SdkDialect:
    """The SDK dialect: events with an id and a signature over the body."""

    name: DialectName = "sdk"
    path = WEBHOOKS_PATH
    headers: Sequence[tuple[str, bytes]] = ()

    def __init__(self, settings: IngestSettings, counts: ProcessCounts) -> None:
        self._settings = settings
        self._clock = ClockDoubt(counts)
        self._secrets = [secret.reveal().encode() for secret in settings.webhook_secrets]
        self.read = decode_envelope
        self.event_id = readable_event_id

    def refuse_by_head(self, _headers: Headers) -> ProblemResponse | None:
        """Refuse nothing yet, because a signature can be checked only with the body."""
        return None

    def refuse(self, delivery: DeliveryHead, body: bytes) -> ProblemResponse | None:
        """Refuse a delivery that has no good signature."""
        fault = self._fault(delivery, body)
        if fault is None:
            return None
        if fault is SignatureFault.OUT_OF_TOLERANCE:
            self._clock.note(delivery.signature.decode("latin-1"), delivery.received_at_ms)
        return problem(fault, self._explain(fault, delivery))

    def _fault(self, delivery: DeliveryHead, body: bytes) -> SignatureFault | None:
        if self._settings.allow_unsigned:
            return None
        return verify(
            delivery.signature.decode("latin-1"),
            body,
            secrets=self._secrets,
            now_s=delivery.received_at_ms / 1000,
            tolerance_s=self._settings.signature_tolerance_s,
            form=self._settings.signed_form,
        )

    def _explain(self, fault: SignatureFault, delivery: DeliveryHead) -> str:
        match fault:
            case SignatureFault.MISSING:
                return "the header Plexy-Signature is missing"
            case SignatureFault.MALFORMED:
                return "expected Plexy-Signature to be t=<Unix seconds>,v1=<64 hex digits>"
            case SignatureFault.MISMATCH:
                return "Plexy-Signature does not fit this body and the secrets configured here"
            case SignatureFault.OUT_OF_TOLERANCE:
                tolerance_s = self._settings.signature_tolerance_s
                late = f"the time in Plexy-Signature is more than {tolerance_s} s from now"
                signed_at = signed_at_s(delivery.signature.decode("latin-1"))
                looks = "; it looks like milliseconds, expected seconds"
                return late + looks * (signed_at >= LEAST_MILLISECONDS)
            case _:
                assert_never(fault)


class PayDialect:
    """The Pay API's dialect: notifications that have no id, from a sender that knows a token."""

    name: DialectName = "pay"
    path = PAY_PATH

    def __init__(self, tokens: Sequence[Secret], amounts: PayAmounts) -> None:
        self.headers: Sequence[tuple[str, bytes]] = pay_headers(amounts)
        self._digests = [_digest(token.reveal().encode()) for token in tokens]
        self._amounts = amounts

    def refuse_by_head(self, headers: Headers) -> ProblemResponse | None:
        """Refuse a request unless it has exactly one token, and this token is known."""
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or given[0][: len(_BEARER)].lower() != _BEARER.lower():
            detail = "expected the header Authorization once, as Bearer and the token"
            return problem("token_missing", detail, headers=_CHALLENGE)
        if not self._knows(given[0][len(_BEARER) :].strip(b" ")):
            detail = "the token in Authorization is not in LEDGER_PAY_TOKENS"
            return problem("token_mismatch", detail, headers=_CHALLENGE)
        return None

    def refuse(self, _delivery: DeliveryHead, _body: bytes) -> ProblemResponse | None:
        """Refuse nothing more, because a token says nothing about the body."""
        return None

    def read(self, body: bytes) -> Envelope | Rejection:
        """Read a notification, whose id is derived from its content."""
        return decode_notification(body, self._amounts)

    def event_id(self, _fields: dict[str, Any]) -> str | None:
        """Return ``None``, because notifications have no id."""
        return None

    def _knows(self, token: bytes) -> bool:
        # All digests have the same length, and all of them are compared, so the time of the
        # comparison reveals nothing about a token.
        given = _digest(token)
        return sum(hmac.compare_digest(given, each) for each in self._digests) > 0


def _digest(token: bytes) -> bytes:
    return blake2b(token, digest_size=32).digest()
