"""Handles deliveries: raw body → signature or token → envelope → log → answer.

Input: a delivery, as an ASGI request or as headers with a complete body. Output: 200 once the log
has the delivery, or a problem document, within ``answer_within_s`` of the arrival; and one line of
log output. Invariants: ingress never answers 200 before the log's acknowledgement, and never judges
the content of an event.
"""

import asyncio
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, assert_never

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.answers import Headers, ProblemResponse, Received, Waiting, problem
from ingest.appends import LogUnavailableError
from ingest.body import BodyFault, read_body
from ingest.dialects import WebhookDialect
from ingest.load import BodyMemory, Deliveries
from ingest.log import Log
from ingest.metrics import ProcessCounts
from ingest.records import (
    DeliveryHead,
    NewRecord,
    json_object,
    rejected_delivery_record,
    webhook_record,
)
from ingest.settings import IngestSettings
from ledger.envelope import Envelope
from ledger.records import Place
from ledger.rejections import Rejection
from runtime.lines import FrequentLog

if TYPE_CHECKING:
    from ingest.spans import DeliverySpan, DeliverySpans

# A slow body may take this share of the time until the answer is due. The log gets the rest, so
# that a late acknowledgement is a fault of Kafka, not of the sender.
_READ_SHARE: Final = 0.6
# In the last tenth of the time, the answer travels to the sender.
_APPEND_SHARE: Final = 0.9

_log = FrequentLog()


class AcceptedDelivery(msgspec.Struct, frozen=True):
    """A delivery that is answered 200 once the log of record has it."""

    outcome: ClassVar[str] = "accepted"
    event_id: str
    event_type: str
    record: NewRecord

    def answer(self, place: Place) -> Response:
        """Return the answer, with the place of the record."""
        return Received(place)


class RejectedDelivery(msgspec.Struct, frozen=True):
    """An authenticated delivery that is no event, and is refused once ``plexy.rejected`` has it."""

    event_type: ClassVar[None] = None
    event_id: str | None
    record: NewRecord
    problem: ProblemResponse

    @property
    def outcome(self) -> str:
        """The problem's stable name."""
        return self.problem.code

    def answer(self, _place: Place) -> Response:
        """Return the answer, which does not depend on the place of the record."""
        return self.problem


_SignedDelivery = AcceptedDelivery | RejectedDelivery
# A problem is the answer to a delivery that is refused and not kept.
_Verdict = _SignedDelivery | ProblemResponse
_RefusedBody = Literal[BodyFault.TOO_LARGE, BodyFault.TOO_SLOW, BodyFault.NO_ROOM]


class _NoSpan(nullcontext[None]):
    """Replaces the span of a delivery if traces are off."""

    def go_on(self) -> list[tuple[str, bytes]]:
        return []

    def end(self, *_: Any) -> None:
        pass


_NO_SPAN: Final = _NoSpan()


class _Arrival(NamedTuple):
    """A delivery that is under way, and the time ``started`` at which it arrived."""

    delivery: DeliveryHead
    span: "DeliverySpan | _NoSpan"
    started: float


class Room:
    """The room for deliveries in one process, shared by the endpoints of all paths."""

    def __init__(self, settings: IngestSettings) -> None:
        self.deliveries = Deliveries(settings.max_in_flight)
        self.memory = BodyMemory()

    def load(self) -> tuple[int, int]:
        """Return the deliveries in flight, and the bytes of large bodies in memory."""
        return self.deliveries.count, self.memory.size_bytes


class WebhookEndpoint:
    """One dialect's endpoint, as an ASGI application and as a handler of whole requests."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of an ingress
        self,
        settings: IngestSettings,
        dialect: WebhookDialect,
        log: Log,
        counts: ProcessCounts,
        room: Room,
        spans: "DeliverySpans | None" = None,
    ) -> None:
        self._settings = settings
        self._dialect = dialect
        self.path = dialect.path.encode()
        self._counts = counts
        self.failed = counts.failed
        self._log = log
        self._spans = spans
        self._names = settings.names
        self._deliveries = room.deliveries
        self._memory = room.memory
        self._read_within_s = settings.answer_within_s * _READ_SHARE
        self._append_within_s = settings.answer_within_s * _APPEND_SHARE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one delivery, whose body may still be arriving."""
        arrived = asyncio.get_running_loop().time()
        arrival = self._arrived(scope["headers"])
        with arrival.span:
            try:
                answer = await self._read(arrival, scope["headers"], receive, arrived)
            except asyncio.CancelledError:
                # The server stopped waiting at its shutdown, which is not a bug.
                arrival.span.end("cancelled")
                raise
        if answer is not None:
            await answer(scope, receive, send)

    def take(self, headers: Headers, body: bytes) -> Response | Waiting:
        """Take one delivery that arrived whole, and is small enough to always find room.

        The steps are the same as in ``__call__``, apart from reading the body. This method needs no
        coroutine and no task, which would take a tenth of a delivery's time.
        """
        arrival = self._arrived(headers)
        with arrival.span:
            refused = self._refuse_by_head(arrival.delivery, headers)
            verdict = refused or self._judge(arrival, body)
            until = asyncio.get_running_loop().time() + self._append_within_s
            return self._answer(arrival, verdict, until)

    def _arrived(self, headers: Headers) -> _Arrival:
        started = time.perf_counter()
        span = _NO_SPAN if self._spans is None else self._spans.arrived(self._dialect.path, headers)
        head = DeliveryHead.of(headers, time.time_ns() // 1_000_000, self._dialect.headers)
        return _Arrival(head, span, started)

    async def _read(
        self, arrival: _Arrival, headers: Headers, receive: Receive, arrived: float
    ) -> Response | None:
        """Read the body, which keeps its room in memory until there is an answer.

        Return the answer, or ``None`` if the sender has disconnected.
        """
        if (refused := self._refuse_by_head(arrival.delivery, headers)) is not None:
            return self._refuse(arrival, refused)
        async with read_body(
            receive,
            self._memory,
            limit_bytes=self._settings.max_body_bytes,
            until=arrived + self._read_within_s,
        ) as body:
            if body is BodyFault.DISCONNECTED:
                self._report(arrival, "client_disconnected")
                return None
            verdict = self._judge(arrival, body) if isinstance(body, bytes) else self._no_body(body)
            answer = self._answer(arrival, verdict, arrived + self._append_within_s)
            return await self._wait(answer) if isinstance(answer, Waiting) else answer

    async def _wait(self, waiting: Waiting) -> Response:
        try:
            await asyncio.wait([waiting.done])
        except asyncio.CancelledError:
            self._deliveries.release()
            raise
        return waiting.settle()

    def _answer(self, arrival: _Arrival, verdict: _Verdict, until: float) -> Response | Waiting:
        """Answer a refused delivery, or begin to append the record on which the answer depends."""
        match verdict:
            case ProblemResponse():
                return self._refuse(arrival, verdict)
            case AcceptedDelivery() | RejectedDelivery():
                kept = self._append(verdict.record, until)
                if kept is None:
                    return self._refuse(arrival, _overloaded())
                return Waiting(kept, partial(self._settle, arrival, verdict, kept))
            case _:
                assert_never(verdict)

    def _append(self, record: NewRecord, until: float) -> asyncio.Future[Place] | None:
        """Begin to append a record; return ``None`` if too many deliveries are in flight.

        The record takes one of the places in flight until ``release``. Only a delivery with a good
        signature or token has a record, and so takes a place.
        """
        if not self._deliveries.admit():
            return None
        try:
            return asyncio.ensure_future(self._log.append(record, until))
        except BaseException:
            self._deliveries.release()
            raise

    def _settle(
        self, arrival: _Arrival, signed: _SignedDelivery, kept: asyncio.Future[Place]
    ) -> Response:
        """Answer a delivery once the log has acknowledged or failed its record."""
        self._deliveries.release()
        with arrival.span:
            error = kept.exception()
            if error is None:
                place = kept.result()
                answer = signed.answer(place)
                self._report(arrival, signed.outcome, answer.status_code, signed, place)
                return answer
            if not isinstance(error, LogUnavailableError):
                raise error
            detail = f"{error}; the delivery is not kept, deliver it again"
            refusal = problem("log_unavailable", detail)
            self._report(arrival, refusal.code, refusal.status_code, signed)
            return refusal

    def _refuse(self, arrival: _Arrival, answer: ProblemResponse) -> Response:
        self._report(arrival, answer.code, answer.status_code)
        return answer

    def _refuse_by_head(self, delivery: DeliveryHead, headers: Headers) -> ProblemResponse | None:
        """Refuse a delivery by its head alone, if possible, without reading its body."""
        if not delivery.is_json:
            expected = "expected the header Content-Type to be application/json"
            return problem("unsupported_media_type", expected)
        if delivery.is_encoded:
            expected = "expected no header Content-Encoding: send the body uncompressed"
            return problem("unsupported_media_type", expected)
        if (delivery.content_length or 0) > self._settings.max_body_bytes:
            return self._too_large()
        return self._dialect.refuse_by_head(headers)

    def _judge(self, arrival: _Arrival, body: bytes) -> _Verdict:
        """Judge the size, the sender and the envelope of a whole delivery."""
        delivery = arrival.delivery
        if len(body) > self._settings.max_body_bytes:
            return self._too_large()
        if (refused := self._dialect.refuse(delivery, body)) is not None:
            return refused
        if trace := arrival.span.go_on():
            delivery = delivery._replace(trace=trace)
        match envelope := self._dialect.read(body):
            case Envelope():
                record = webhook_record(self._names, delivery, body, envelope)
                return AcceptedDelivery(envelope.id, envelope.type, record)
            case Rejection():
                return self._reject(delivery, body, envelope)
            case _:
                assert_never(envelope)

    def _reject(
        self, delivery: DeliveryHead, body: bytes, rejection: Rejection
    ) -> RejectedDelivery | ProblemResponse:
        """Refuse a signed body that is not an event, and keep it if it is a JSON object.

        Other bodies are not kept, because their signature may come from a recorded delivery: if
        both signed forms are accepted, a signature of ``t.body`` is also valid for a delivery whose
        raw body is the text ``t.body``.
        """
        answer = problem(rejection.reason.value, rejection.detail, field=rejection.field)
        fields = json_object(body)
        if fields is None:
            return answer
        event_id = self._dialect.event_id(fields)
        record = rejected_delivery_record(self._names, delivery, body, rejection, event_id)
        return RejectedDelivery(event_id, record, answer)

    def _no_body(self, fault: _RefusedBody) -> ProblemResponse:
        match fault:
            case BodyFault.TOO_LARGE:
                return self._too_large()
            case BodyFault.TOO_SLOW:
                detail = f"the body was not complete within {self._read_within_s:g} s"
                return problem("request_timeout", detail)
            case BodyFault.NO_ROOM:
                return _overloaded()
            case _:
                assert_never(fault)

    def _too_large(self) -> ProblemResponse:
        limit = self._settings.max_body_bytes
        return problem("body_too_large", f"expected a body of at most {limit} bytes")

    def _report(
        self,
        arrival: _Arrival,
        outcome: str,
        status: int | None = None,
        signed: _SignedDelivery | None = None,
        place: Place | None = None,
    ) -> None:
        """Count a delivery, log its line, and end its span; ``place`` is its record's place."""
        took_s = time.perf_counter() - arrival.started
        event_id = event_type = record = None
        if signed is not None:
            event_id, event_type = signed.event_id, signed.event_type
            record = signed.record if place else None
        kept_bytes = len(record.value) if record else 0
        self._counts.delivered(self._dialect.name, outcome, took_s, kept_bytes)
        _log.info(
            "delivery",
            event_id=event_id,
            type=event_type,
            outcome=outcome,
            ms=round(took_s * 1000, 1),
        )
        arrival.span.end(outcome, status, event_id, record.topic if record else None, place)


def _overloaded() -> ProblemResponse:
    return problem("overloaded", "too many deliveries are in flight; deliver this one later")
