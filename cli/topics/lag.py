"""Measures how far a group of workers has folded a topic, and shows a bar on a terminal.

If a partition has no committed offset, its lag is counted from its first offset.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topic_records import missing_fault


class Lag(NamedTuple):
    """The numbers of folded records and of all records of a topic."""

    topic: str
    done: int
    total: int


class TopicMissingError(TopicsError):
    """A topic that the command reads does not exist."""


Report = Callable[[Lag], None]
"""A function that receives each measurement."""


class PartitionLag(NamedTuple):
    """One partition: its first offset, the next offset to fold, and its end offset.

    ``deleted`` is the number of records that were deleted before they were folded.
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
    """Return a topic's partitions; raise ``TopicMissingError`` if there is no such topic."""
    (described,) = await admin.describe_topics([topic])
    if not described["partitions"]:
        # Without this error, a missing topic would look like an empty topic.
        raise TopicMissingError(missing_fault([topic]))
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
        # A new broker has no topic for committed offsets yet. This request makes the broker create
        # the topic.
        return {}
    return {tp.partition: each.offset for tp, each in found.items() if each.offset >= 0}


async def lags(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    topic: str,
    ends: Mapping[int, int] | None = None,
) -> list[PartitionLag]:
    """Return each partition's lag up to ``ends``; the default is up to the partition's end."""
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


@contextmanager
def progress_bar(console: Console) -> Iterator[Report]:
    """Show a bar for each topic while the block runs, if there is a terminal."""
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = {}
        first: dict[str, tuple[float, int]] = {}

        def report(lag: Lag) -> None:
            if lag.topic not in tasks:
                tasks[lag.topic] = bars.add_task(f"folding {lag.topic}", total=lag.total, rate="")
            since_s, done = first.setdefault(lag.topic, (time.monotonic(), lag.done))
            rate = f"{(lag.done - done) / max(time.monotonic() - since_s, 0.001):,.0f}/s"
            bars.update(tasks[lag.topic], completed=lag.done, total=lag.total, rate=rate)

        yield report
