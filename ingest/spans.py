"""Creates a span for each delivery, with the delivery's times, answer and place in Kafka.

Input: a request's headers, and the outcome of its delivery. Output: an OpenTelemetry span of the
kind SERVER, and a header that names the span to the record's readers. Invariants: a span contains
no signature, and nothing of the body except ids; only a sender with a good signature can choose
the trace.
"""

import time
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind

from ingest.answers import Headers
from ledger.records import Place
from runtime.trace_settings import TRACEPARENT
from runtime.tracing import NO_CONTEXT, Tracing, context_of, span_context_of, traceparent_of

_HEADER: Final = TRACEPARENT.encode()
_FAILED: Final = 500


class DeliverySpans:
    """Begins the spans of one process."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def arrived(self, path: str, headers: Headers) -> "DeliverySpan":
        """Return the span of a request that has just arrived at a path."""
        return DeliverySpan(self._tracing, path, headers)

    def close(self) -> None:
        """Send the queued spans; block for at most a second."""
        self._tracing.close()


class DeliverySpan:
    """The span of one delivery, which begins once the delivery's signature has been checked."""

    __slots__ = (
        "_arrived_ns",
        "_begun",
        "_headers",
        "_links",
        "_parent",
        "_path",
        "_span",
        "_tracing",
    )

    def __init__(self, tracing: Tracing, path: str, headers: Headers) -> None:
        self._tracing = tracing
        self._path = path
        self._headers = headers
        self._arrived_ns = time.time_ns()
        self._begun = False
        self._parent = NO_CONTEXT
        self._links: list[SpanContext] = []
        # ``None`` means that the delivery is not sampled.
        self._span: SpanContext | None = None

    def __enter__(self) -> None:
        """Begin a step of the delivery."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """If the step raises an exception, end the span as failed, unless the span has ended."""
        if error is not None:
            # The text of an exception may have any content, so the span has only the exception's
            # name.
            name = type(error).__name__
            self._end({"http.response.status_code": _FAILED, "error.type": name})

    def go_on(self) -> list[tuple[str, bytes]]:
        """Begin the span as a part of the sender's trace, because the signature is good.

        Returns the headers that name the span in the record; none for an unsampled delivery.
        """
        self._parent = self._named()
        self._begin()
        return [] if self._span is None else [(TRACEPARENT, traceparent_of(self._span))]

    def end(
        self,
        outcome: str,
        status: int | None = None,
        event_id: str | None = None,
        topic: str | None = None,
        place: Place | None = None,
    ) -> None:
        """End the span with the outcome; ``status`` is ``None`` if there was no answer."""
        if self._begun and self._span is None:
            return
        attributes: dict[str, str | int | None] = {
            "ledger.outcome": outcome,
            "ledger.event.id": event_id,
            "http.response.status_code": status,
            "messaging.system": "kafka" if topic else None,
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(place.partition) if place else None,
            "messaging.kafka.offset": place.offset if place else None,
            "error.type": outcome if status is not None and status >= _FAILED else None,
        }
        self._end({name: value for name, value in attributes.items() if value is not None})

    @property
    def _name(self) -> str:
        return f"POST {self._path}"

    @property
    def _request(self) -> dict[str, str | int]:
        return {
            "http.request.method": "POST",
            "http.route": self._path,
            "url.path": self._path,
        }

    def _begin(self) -> None:
        self._begun = True
        self._span = self._tracing.begin(self._name, SpanKind.SERVER, self._parent)

    def _end(self, attributes: dict[str, str | int]) -> None:
        if not self._begun:
            # Anyone may have chosen the named trace, so the span only links to that trace.
            named = span_context_of(self._named())
            self._links = [named] if named.is_valid else []
            self._begin()
        if self._span is not None:
            self._tracing.end(
                self._name,
                SpanKind.SERVER,
                self._span,
                parent=self._parent,
                attributes=self._request | attributes,
                times_ns=(self._arrived_ns, time.time_ns()),
                links=self._links,
                is_error="error.type" in attributes,
            )
            self._span = None

    def _named(self) -> Context:
        """Return the trace that the request names, or no trace if the request names several."""
        named = [value for name, value in self._headers if name == _HEADER]
        return context_of(named[0]) if len(named) == 1 else NO_CONTEXT
