"""Makes a ``FetchedRecord`` from a record and its batches (``runtime.kafka.fetched``)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from processors.engine.chunk import FetchedRecord
from runtime.kafka.fetched import Batches
from runtime.trace_settings import TRACEPARENT

# The header ``traceparent`` has a version, two ids and flags, in hex (W3C Trace Context).
_TRACEPARENT_BYTES: Final = 55
# Ingress writes fewer headers. The limit is for records that another program may have written.
_MARKED_HEADERS: Final = 10

Fetched = Mapping[TopicPartition, list[FetchedRecord]]
Make = Callable[[Batches, TopicPartition, Any], FetchedRecord]


def record_of(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record without headers."""
    # The arguments are positional for speed, because every record passes through here.
    place = (tp.partition, record.offset, record.timestamp, batches.leader_epoch)
    return FetchedRecord(record.key, record.value, *place)


def record_with_headers(
    most: int, batches: Batches, tp: TopicPartition, record: Any
) -> FetchedRecord:
    """Make a record with its first ``most`` headers.

    The number is limited, because another program may have written a record with millions of
    headers.
    """
    return replace(traced_record(batches, tp, record), headers=record.headers[:most])


def marked(mark: str, make: Make) -> Make:
    """Return a function that makes records, and keeps headers if the first header is ``mark``.

    If a record's first header has another name, the returned function calls ``make``.
    """

    def make_marked(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
        headers = record.headers
        if headers and headers[0][0] == mark:
            return record_with_headers(_MARKED_HEADERS, batches, tp, record)
        return make(batches, tp, record)

    return make_marked


def traced_record(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with the header that names its trace, if the record has this header."""
    for name, value in record.headers:
        # Another program may have written the record, so a value that is too long is not passed on.
        if name == TRACEPARENT and value and len(value) <= _TRACEPARENT_BYTES:
            place = (tp.partition, record.offset, record.timestamp, batches.leader_epoch)
            return FetchedRecord(record.key, record.value, *place, value)
    return record_of(batches, tp, record)
