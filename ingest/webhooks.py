"""``POST /webhooks/plexy``: raw body → signature → envelope → log → answer.

In: a delivery, as an ASGI request. Out: 200 once the log has it, else a problem document, within
``answer_within_s`` of its arrival; and one log line. Never: a 200 before the acknowledgement, a
judgement of what the event says, or any other work: whatever is made of it is made from the log.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.answers import WEBHOOKS_PATH, Headers, Received, Waiting, problem
from ingest.appends import LogUnavailableError, Place
from ingest.body import BodyFault, read_body
from ingest.clock import ClockDoubt
from ingest.load import BodyMemory, Deliveries
from ingest.log import Log
from ingest.metrics import Tally
from ingest.records import (
    Delivery,
    Record,
    json_object,
    readable_event_id,
    rejected_delivery_record,
    webhook_record,
)
from ingest.settings import IngestSettings
from ledger.envelope import Envelope, decode_envelope
from ledger.rejections import Rejection
from ledger.signature import SignatureFault, verify
from runtime.lines import FrequentLog

if TYPE_CHECKING:
    from ingest.spans import DeliverySpan, Spans


# Of the time until the answer is due, a slow body may take this share, so that the log always has
# the rest: a record that isn't acknowledged by then says something about Kafka, not about a sender.
_READ_SHARE: Final = 0.6
# The last tenth is for the answer's own way.
_APPEND_SHARE: Final = 0.9

_ACCEPTED: Final = "accepted"

_log = FrequentLog()


class _Outcome(NamedTuple):
    """What becomes of a delivery; without ``answer``, its sender has gone, or will hear its place.

    With ``record``, it holds only once the log has that, at ``place``.
    """

    name: str
    answer: Response | None
    event_id: str | None = None
    event_type: str | None = None
    record: Record | None = None
    place: Place | None = None


class WebhookEndpoint:
    """The endpoint: an ASGI application, and what takes whole requests from the connection."""

    path = WEBHOOKS_PATH.encode()

    def __init__(
        self, settings: IngestSettings, log: Log, tally: Tally, spans: "Spans | None" = None
    ) -> None:
        self._settings = settings
        self._tally = tally
        self._clock = ClockDoubt(tally)
        # What hears of a bug on the way of whole requests.
        self.failed = tally.failed
        self._log = log
        self._spans = spans
        self._names = settings.names
        self._secrets = [secret.reveal().encode() for secret in settings.webhook_secrets]
        self._deliveries = Deliveries(settings.max_in_flight)
        self._memory = BodyMemory()
        self._read_within_s = settings.answer_within_s * _READ_SHARE
        self._append_within_s = settings.answer_within_s * _APPEND_SHARE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one delivery, whose body may still be arriving."""
        arrived = asyncio.get_running_loop().time()
        started = time.perf_counter()
        span = None if self._spans is None else self._spans.arrived(scope["headers"])
        delivery = Delivery.of(scope, time.time_ns() // 1_000_000)
        try:
            outcome = self._refuse_by_head(delivery) or await self._read(
                delivery, span, receive, arrived
            )
        except asyncio.CancelledError:
            # The server ends, and waits no longer: no bug.
            if span is not None:
                span.end("cancelled")
            raise
        except Exception as error:
            if span is not None:
                span.fail(error)
            raise
        self._report(span, outcome, time.perf_counter() - started)
        if outcome.answer is not None:
            await outcome.answer(scope, receive, send)

    def take(self, headers: Headers, body: bytes) -> Response | Waiting:
        """Take one delivery that arrived whole, and is so small that it finds room in any case.

        It does what a call does, without a coroutine: those, and their task, are a tenth of the
        time that a delivery takes.
        """
        started = time.perf_counter()
        span = None if self._spans is None else self._spans.arrived(headers)
        delivery = Delivery.of({"headers": headers}, time.time_ns() // 1_000_000)
        try:
            return self._take(delivery, span, body, started)
        except BaseException as error:
            if span is not None:
                span.fail(error)
            raise

    def _take(
        self, delivery: Delivery, span: "DeliverySpan | None", body: bytes, started: float
    ) -> Response | Waiting:
        outcome = self._refuse_by_head(delivery) or self._judge(delivery, span, body)
        if outcome.record is None:
            return self._answer(span, outcome, started)
        until = asyncio.get_running_loop().time() + self._append_within_s
        kept = self._append(outcome.record, until)
        if kept is None:
            return self._answer(span, _overloaded(), started)

        def settle() -> Response:
            self._deliveries.release()
            try:
                return self._answer(span, _settled(outcome, kept), started)
            except BaseException as error:
                if span is not None:
                    span.fail(error)
                raise

        return Waiting(kept, settle)

    def load(self) -> tuple[int, int]:
        """Return the deliveries in flight, and the bytes of large bodies in memory."""
        return self._deliveries.count, self._memory.size_bytes

    def _refuse_by_head(self, delivery: Delivery) -> _Outcome | None:
        """Refuse what need not be read."""
        if not delivery.is_json:
            return _refused("unsupported_media_type", "expected content-type application/json")
        if (delivery.content_length or 0) > self._settings.max_body_bytes:
            return self._too_large()
        return None

    async def _read(
        self, delivery: Delivery, span: "DeliverySpan | None", receive: Receive, arrived: float
    ) -> _Outcome:
        """Read the body, which has its room in memory until the delivery is decided."""
        async with read_body(
            receive,
            self._memory,
            limit_bytes=self._settings.max_body_bytes,
            until=arrived + self._read_within_s,
        ) as body:
            if isinstance(body, BodyFault):
                return self._no_body(body)
            outcome = self._judge(delivery, span, body)
            return await self._keep(outcome, arrived + self._append_within_s)

    async def _keep(self, outcome: _Outcome, until: float) -> _Outcome:
        """Wait until the log has what the outcome rests on."""
        if outcome.record is None:
            return outcome
        kept = self._append(outcome.record, until)
        if kept is None:
            return _overloaded()
        try:
            await asyncio.wait([kept])
        finally:
            self._deliveries.release()
        return _settled(outcome, kept)

    def _append(self, record: Record, until: float) -> asyncio.Future[Place] | None:
        """Begin to keep a record, which takes a place until ``release``; ``None`` without one.

        Only what is to be kept takes a place, and so only what has a good signature.
        """
        if not self._deliveries.admit():
            return None
        try:
            return asyncio.ensure_future(self._log.append(record, until))
        except BaseException:
            self._deliveries.release()
            raise

    def _judge(self, delivery: Delivery, span: "DeliverySpan | None", body: bytes) -> _Outcome:
        """Judge a whole delivery: size, signature, envelope."""
        if len(body) > self._settings.max_body_bytes:
            return self._too_large()
        fault = self._signature_fault(delivery, body)
        if fault is SignatureFault.OUT_OF_TOLERANCE:
            self._clock.note(delivery.signature.decode("latin-1"), delivery.received_at_ms)
        if fault is not None:
            return _refused(fault, self._explain(fault))
        if span is not None:
            delivery = delivery._replace(trace=span.go_on())
        envelope = decode_envelope(body)
        match envelope:
            case Envelope():
                record = webhook_record(self._names, delivery, body, envelope)
                return _Outcome(_ACCEPTED, None, envelope.id, envelope.type, record)
            case Rejection():
                return self._reject(delivery, body, envelope)
            case _:
                assert_never(envelope)

    def _reject(self, delivery: Delivery, body: bytes, rejection: Rejection) -> _Outcome:
        """Refuse a signed body that is not an event, and keep it if it is a JSON object.

        Other bodies are not kept, as their signature may be a replay: where both forms are
        accepted, the signature over a recorded ``t.body`` also fits those bytes as a raw body.
        """
        fields = json_object(body)
        if fields is None:
            return _rejected(rejection)
        event_id = readable_event_id(fields)
        record = rejected_delivery_record(self._names, delivery, body, rejection, event_id)
        return _rejected(rejection, event_id, record)

    def _signature_fault(self, delivery: Delivery, body: bytes) -> SignatureFault | None:
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

    def _explain(self, fault: SignatureFault) -> str:
        match fault:
            case SignatureFault.MISSING:
                return "the header Plexy-Signature is missing"
            case SignatureFault.MALFORMED:
                return "expected Plexy-Signature to be t=<Unix seconds>,v1=<64 hex digits>"
            case SignatureFault.MISMATCH:
                return "Plexy-Signature does not fit this body and the secrets configured here"
            case SignatureFault.OUT_OF_TOLERANCE:
                tolerance_s = self._settings.signature_tolerance_s
                return f"the time in Plexy-Signature is more than {tolerance_s} s from now"
            case _:
                assert_never(fault)

    def _no_body(self, fault: BodyFault) -> _Outcome:
        match fault:
            case BodyFault.TOO_LARGE:
                return self._too_large()
            case BodyFault.TOO_SLOW:
                detail = f"the body was not complete within {self._read_within_s:g} s"
                return _refused("request_timeout", detail)
            case BodyFault.NO_ROOM:
                return _overloaded()
            case BodyFault.DISCONNECTED:
                return _Outcome("client_disconnected", None)
            case _:
                assert_never(fault)

    def _too_large(self) -> _Outcome:
        limit = self._settings.max_body_bytes
        return _refused("body_too_large", f"expected a body of at most {limit} bytes")

    def _answer(self, span: "DeliverySpan | None", outcome: _Outcome, started: float) -> Response:
        self._report(span, outcome, time.perf_counter() - started)
        if outcome.answer is None:
            raise AssertionError("a delivery that arrived whole has a sender")
        return outcome.answer

    def _report(self, span: "DeliverySpan | None", outcome: _Outcome, took_s: float) -> None:
        """Count a delivery, log its one line, and end its span."""
        record = outcome.record
        self._tally.delivered(outcome.name, took_s, len(record.value) if record else 0)
        _log.info(
            "delivery",
            event_id=outcome.event_id,
            type=outcome.event_type,
            outcome=outcome.name,
            ms=round(took_s * 1000, 1),
        )
        if span is not None:
            status = outcome.answer.status_code if outcome.answer else None
            topic = record.topic if record else None
            span.end(outcome.name, status, outcome.event_id, topic, outcome.place)


def _refused(code: str, detail: str) -> _Outcome:
    return _Outcome(code, problem(code, detail))


def _overloaded() -> _Outcome:
    return _refused("overloaded", "too many deliveries are in flight; deliver this one later")


def _rejected(
    rejection: Rejection, event_id: str | None = None, record: Record | None = None
) -> _Outcome:
    code = rejection.reason.value
    answer = problem(code, rejection.detail, field=rejection.field)
    return _Outcome(code, answer, event_id, record=record)


def _settled(outcome: _Outcome, kept: asyncio.Future[Place]) -> _Outcome:
    """Return what became of a delivery whose record is kept, or is not."""
    error = kept.exception()
    if error is None:
        place = kept.result()
        answer = Received(place) if outcome.name is _ACCEPTED else outcome.answer
        return outcome._replace(answer=answer, place=place)
    if not isinstance(error, LogUnavailableError):
        raise error
    detail = f"{error}; the delivery is not kept, deliver it again"
    answer = problem("log_unavailable", detail)
    return outcome._replace(name="log_unavailable", answer=answer, record=None)
