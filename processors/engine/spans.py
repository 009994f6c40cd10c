"""Makes a span at each hop for each traced record, with the chunk's times and the record's outcome.

The spans have OpenTelemetry's kind CONSUMER. Each span belongs to the trace that its record names.
A chunk gets its spans only after its results are written: until then, the chunk may be redelivered,
and would get its spans twice.
"""

import time
from collections.abc import Iterable
from typing import Final

from opentelemetry.trace import SpanContext, SpanKind

from processors.engine.chunk import Attributes, Chunk, FetchedRecord
from runtime.tracing import Tracing, context_of, span_context_of

# By default, OpenTelemetry keeps at most this many links per span.
_MOST_LINKS: Final = 128


class Spans:
    """Makes the spans of one worker."""

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
        """Make the spans of a chunk that has just been written, one for each traced record.

        If several records have the same key, their outputs name only the trace of the last of these
        records. So the span of the last record has links to the other records' traces.
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
        """Send the spans that are not sent yet; this call blocks for a limited time."""
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
