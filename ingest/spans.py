"""A span for each delivery: when it arrived, what it was answered, and where it is kept.

In: a request's headers, and what became of its delivery. Out: an OpenTelemetry span of the kind
SERVER, and the header that names it to whoever reads the record. Never: anything of the body but
ids, a signature, or a trace that was chosen by somebody whose signature is not good.
"""

import time
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind

from ingest.answers import Headers
from ingest.settings import WEBHOOKS_PATH
from ledger.records import Place
from runtime.trace_settings import TRACEPARENT
from runtime.tracing import NO_CONTEXT, Tracing, context_of, span_context_of, traceparent_of

_NAME: Final = f"POST {WEBHOOKS_PATH}"
_REQUEST: Final = {
    "http.request.method": "POST",
    "http.route": WEBHOOKS_PATH,
    "url.path": WEBHOOKS_PATH,
}
_HEADER: Final = TRACEPARENT.encode()
_FAILED: Final = 500


class DeliverySpans:
    """What begins the spans of one process."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def arrived(self, headers: Headers) -> "DeliverySpan":
        """Note that a request arrived just now."""
        return DeliverySpan(self._tracing, headers)

    def close(self) -> None:
        """Send what waits, in bounded time; blocks."""
        self._tracing.close()


class DeliverySpan:
    """The span of one delivery, begun once it is known whether its sender is to be believed."""

    __slots__ = ("_arrived_ns", "_begun", "_headers", "_links", "_parent", "_span", "_tracing")

    def __init__(self, tracing: Tracing, headers: Headers) -> None:
        self._tracing = tracing
        self._headers = headers
        self._arrived_ns = time.time_ns()
        self._begun = False
        self._parent = NO_CONTEXT
        self._links: list[SpanContext] = []
        # Without one it is not sampled.
        self._span: SpanContext | None = None

    def __enter__(self) -> None:
        """Begin a step of the delivery."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """End the span with an exception that leaves the step, unless the span has ended."""
        if error is not None:
            # The text of an exception may have any content, so the span has only its name.
            name = type(error).__name__
            self._end({"http.response.status_code": _FAILED, "error.type": name})

    def go_on(self) -> list[tuple[str, bytes]]:
        """Begin as a part of the trace that the sender named, whose signature is good.

        Returns the headers that name it beside the record; none if it is not sampled.
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
        """End with what became of it; ``status`` is ``None`` if it is not answered."""
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

    def _begin(self) -> None:
        self._begun = True
        self._span = self._tracing.begin(_NAME, SpanKind.SERVER, self._parent)

    def _end(self, attributes: dict[str, str | int]) -> None:
        if not self._begun:
            # The trace that was named may be anybody's: it decides nothing, and is only linked.
            named = span_context_of(self._named())
            self._links = [named] if named.is_valid else []
            self._begin()
        if self._span is not None:
            self._tracing.end(
                _NAME,
                SpanKind.SERVER,
                self._span,
                parent=self._parent,
                attributes=_REQUEST | attributes,
                times_ns=(self._arrived_ns, time.time_ns()),
                links=self._links,
                is_error="error.type" in attributes,
            )
            self._span = None

    def _named(self) -> Context:
        """Return the trace that the request names; none if it names several."""
        named = [value for name, value in self._headers if name == _HEADER]
        return context_of(named[0]) if len(named) == 1 else NO_CONTEXT
