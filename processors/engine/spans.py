"""A span for each traced record at each hop: when its chunk was at work, and what became of it.

In: chunks that are written, and what became of their traced records. Out: OpenTelemetry spans of
the kind CONSUMER, each a part of the trace that its record names. Never: a span of a chunk that is
not written, since that chunk comes again.
"""

import time
from collections.abc import Iterable
from typing import Final

from opentelemetry.trace import SpanContext, SpanKind

from processors.engine.chunk import Attributes, Chunk, FetchedRecord
from runtime.tracing import Tracing, context_of, span_context_of

# As many as OpenTelemetry keeps of a span by default.
_MOST_LINKS: Final = 128


class Spans:
    """What makes the spans of one worker."""

    def __init__(self, tracing: Tracing, group_id: str) -> None:
        self._tracing = tracing
        self._group_id = group_id

    def end(
        self,
        hop: str,
        chunk: Chunk,
        begun_ns: int,
        traced: Iterable[tuple[FetchedRecord, Attributes]],
    ) -> None:
        """Make the spans of a chunk that is written just now, one for each traced record.

        What follows from several records of a key names the trace of the last one: its span has
        links to the others.
        """
        ended_ns = time.time_ns()
        name, common = f"{hop} {chunk.tp.topic}", self._common(hop, chunk)
        last = {record.key: record for record in chunk.traced}
        merged: dict[bytes | None, list[SpanContext]] = {}
        for record, attributes in traced:
            parent = context_of(record.traceparent or b"")
            sender = span_context_of(parent)
            if not sender.is_valid:
                continue
            span = self._tracing.begin(name, SpanKind.CONSUMER, parent)
            if span is None:
                continue
            others = merged.setdefault(record.key, [])
            self._tracing.end(
                name,
                SpanKind.CONSUMER,
                span,
                parent=parent,
                attributes={**common, "messaging.kafka.offset": record.offset, **attributes},
                times_ns=(begun_ns, ended_ns),
                links=others[-_MOST_LINKS:] if record is last[record.key] else (),
            )
            others.append(sender)

    def close(self) -> None:
        """Send what waits, in bounded time; blocks."""
        self._tracing.close()

    def _common(self, hop: str, chunk: Chunk) -> dict[str, str | int]:
        return {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": hop,
            "messaging.destination.name": chunk.tp.topic,
            "messaging.destination.partition.id": str(chunk.partition),
            "messaging.consumer.group.name": self._group_id,
            "ledger.chunk.records": len(chunk.records),
        }
