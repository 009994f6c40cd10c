"""How far a group of workers has come in a topic, partition by partition.

In: two clients, a group's name and a topic. Out: where each partition begins, how far it is
committed, where it ends. Never: a partition that is left out because nothing is committed of it:
that one counts from its beginning.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from cli.topics.whole_topic import partitions_of


class Lag(NamedTuple):
    """How many records of a topic are folded, of how many that are there."""

    topic: str
    done: int
    total: int


class PartitionLag(NamedTuple):
    """One partition: its first offset, the next one that is to be folded, and its end.

    ``deleted`` is how many records are gone that nobody had folded.
    """

    partition: int
    begin: int
    committed: int
    end: int
    deleted: int = 0

    @property
    def records(self) -> int:
        """How many records are not folded; what is gone for its age can't be, and need not be."""
        return max(self.end - self.committed, 0)


async def committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[int, int]:
    """Return up to where a group has committed; partitions without a commit are absent."""
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    except KafkaError as error:
        if not error.retriable:
            raise
        # A new broker makes the topic of the commits when it is first asked for one.
        return {}
    return {tp.partition: each.offset for tp, each in found.items() if each.offset >= 0}


async def lags(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    topic: str,
    ends: Mapping[int, int] | None = None,
) -> list[PartitionLag]:
    """Return each partition's lag; up to ``ends``, where they are given, else up to its end."""
    partitions = await partitions_of(admin, topic)
    begins = await consumer.beginning_offsets(partitions)
    done = await committed(admin, group, partitions)
    # Asked last: what is committed meanwhile is then behind an end that is not known yet.
    now = await consumer.end_offsets(partitions) if ends is None else {}
    found = []
    for tp in partitions:
        end = now[tp] if ends is None else ends.get(tp.partition, 0)
        at, begin = done.get(tp.partition, 0), begins[tp]
        deleted = max(begin - at, 0)
        found.append(PartitionLag(tp.partition, begin, max(at, begin), end, deleted))
    return found


def summed(topic: str, partitions: Iterable[PartitionLag]) -> Lag:
    """Return a topic's lag as one."""
    done = total = 0
    for each in partitions:
        total += max(each.end - each.begin, 0)
        done += max(min(each.committed, each.end) - each.begin, 0)
    return Lag(topic, done, total)
