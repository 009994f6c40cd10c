"""Measures how far a group of workers has folded a topic.

A partition without a committed offset counts from its first offset.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from cli.errors import TopicMissingError


class Lag(NamedTuple):
    """The numbers of folded records and of all records of a topic."""

    topic: str
    done: int
    total: int


class PartitionLag(NamedTuple):
    """One partition: its first offset, the next offset to fold, and its end.

    ``deleted`` counts the records that were deleted before they were folded.
    """

    partition: int
    begin: int
    committed: int
    end: int
    deleted: int = 0

    @property
    def records(self) -> int:
        """The number of existing records that are not folded."""
        return max(self.end - self.committed, 0)


async def partitions_of(admin: AIOKafkaAdminClient, topic: str) -> list[TopicPartition]:
    """Return a topic's partitions; ``TopicMissingError`` if there is no such topic."""
    (described,) = await admin.describe_topics([topic])
    if not described["partitions"]:
        # Without this error, a missing topic would look like an empty one.
        raise TopicMissingError(f"there is no topic {topic}; `plexy-ledger topics` creates it")
    return sorted(TopicPartition(topic, each["partition"]) for each in described["partitions"])


async def committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[int, int]:
    """Return the offsets that a group has committed, by partition."""
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    except KafkaError as error:
        if not error.retriable:
            raise
        # A new broker has no topic of committed offsets yet, but creates it on this request.
        return {}
    return {tp.partition: each.offset for tp, each in found.items() if each.offset >= 0}


async def lags(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    topic: str,
    ends: Mapping[int, int] | None = None,
) -> list[PartitionLag]:
    """Return each partition's lag, up to ``ends`` if given, else up to the partition's end."""
    partitions = await partitions_of(admin, topic)
    begins = await consumer.beginning_offsets(partitions)
    done = await committed(admin, group, partitions)
    # The ends are read last, so that no commit is beyond its partition's end.
    now = await consumer.end_offsets(partitions) if ends is None else {}
    found = []
    for tp in partitions:
        end = now[tp] if ends is None else ends.get(tp.partition, 0)
        at, begin = done.get(tp.partition, 0), begins[tp]
        deleted = max(begin - at, 0)
        found.append(PartitionLag(tp.partition, begin, max(at, begin), end, deleted))
    return found


def summed(topic: str, partitions: Iterable[PartitionLag]) -> Lag:
    """Return the lag of a topic, summed over its partitions."""
    done = total = 0
    for each in partitions:
        total += max(each.end - each.begin, 0)
        done += max(min(each.committed, each.end) - each.begin, 0)
    return Lag(topic, done, total)
