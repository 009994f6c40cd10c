"""Where a changelog ends: behind its last record, which may stand before its last offset.

In: partitions, with the offsets between which their records are. Out: the offset after the last
record of each. Never: a guess from silence: that nothing is there is what the broker answered.

Faust's recovery waits for the last offset. Kafka may have an offset that no record has there: of a
transaction's marker, or of a tombstone that compaction has taken away.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from runtime.kafka import KafkaSettings

_FETCH_MS: Final = 100
_FETCH_MAX_WAIT_MS: Final = 50
# The last offset has a record nearly always. If not, look back this many times further each time.
_FURTHER: Final = 100


async def ends_of_records(
    settings: KafkaSettings,
    begins: Mapping[TP, int],
    ends: Mapping[TP, int],
) -> dict[TP, int]:
    """Return the offset after the last record before ``ends``; ``begins`` where there is none."""
    found: dict[TP, int] = {}
    back = 1
    async with AIOKafkaConsumer(
        **settings.client_options(), fetch_max_wait_ms=_FETCH_MAX_WAIT_MS
    ) as consumer:
        # Stopped before its own task has run once, it would raise CancelledError (aiokafka 0.14.0).
        await asyncio.sleep(0)
        while unknown := [tp for tp in ends if tp not in found]:
            starts = {tp: max(begins[tp], ends[tp] - back) for tp in unknown}
            last = await _last_offsets(consumer, starts, ends)
            found |= {tp: offset + 1 for tp, offset in last.items()}
            found |= {
                tp: begins[tp] for tp in unknown if tp not in last and starts[tp] == begins[tp]
            }
            back *= _FURTHER
    return found


async def _last_offsets(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TP, int],
    ends: Mapping[TP, int],
) -> dict[TP, int]:
    """Read from the starts to the ends; return the last record's offset, where there is one."""
    last: dict[TP, int] = {}
    consumer.assign([TopicPartition(*tp) for tp in starts])
    for tp, start in starts.items():
        consumer.seek(TopicPartition(*tp), start)
    # When the broker had last answered as a look found nothing, and whether it has since.
    asked: dict[TP, int | None] = dict.fromkeys(starts)
    answered: set[TP] = set()
    # The two clients' partitions are equal, and each takes only its own.
    unread = {TopicPartition(*tp) for tp in starts}
    while unread:
        fetched = await consumer.getmany(*unread, timeout_ms=_FETCH_MS)
        for tp in list(unread):
            records = [record for record in fetched.get(tp, ()) if record.offset < ends[tp]]
            if records:
                last[tp] = records[-1].offset
            if await consumer.position(tp) >= ends[tp]:
                unread.discard(tp)
            elif tp in fetched:
                asked[tp] = consumer.last_poll_timestamp(tp)
                answered.discard(tp)
            elif tp in answered:
                # What an answer brings is there at the next look, and nothing was.
                unread.discard(tp)
            elif consumer.last_poll_timestamp(tp) != asked[tp]:
                answered.add(tp)
    return last
