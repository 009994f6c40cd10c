"""Sets up a stage: one run's own topics on the broker, so that every run starts from scratch.

A stage creates and loads its topics. It reports the progress of a consumer group, the time of the
last write and the content of a topic. It never touches a topic of a different run.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench.recording import RecordedDelivery
from cli.kafka.process import free_port
from ledger.topics import TABLES, TopicNames, changelog_name
from runtime.kafka.batches import OutRecord, send_by_key
from runtime.kafka.reading import read_ranges
from runtime.kafka.topics import TopicSettings, ensure_topics

PARTITIONS: Final = 4
# The broker sets the time of each record, because some programs copy the time of an input record to
# the output record.
BROKER: Final = {"log.message.timestamp.type": "LogAppendTime"}
# These are the producer options of ingress, with larger batches.
LOAD_OPTIONS: Final[dict[str, Any]] = {
    "acks": "all",
    "enable_idempotence": True,
    "max_batch_size": 512 * 1024,
}
_LOADED_AT_ONCE: Final = 5_000


class BenchError(RuntimeError):
    """A measurement can't be made; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The settings with which a program runs on a stage."""

    bootstrap: str
    name: str
    folder: Path
    partitions: int = PARTITIONS
    web_port: int = field(default_factory=free_port)

    @property
    def prefix(self) -> str:
        """The text with which the name of every topic of this run begins."""
        return f"{self.name}."

    @property
    def group_id(self) -> str:
        """The consumer group of this run's worker, and the start of its changelogs' names."""
        return self.settings.group_id

    @property
    def names(self) -> TopicNames:
        """The topics of this run."""
        return self.settings.names

    @property
    def settings(self) -> TopicSettings:
        """The settings of our own programs for this run."""
        return TopicSettings(
            kafka_bootstrap=self.bootstrap, topic_prefix=self.prefix, partitions=self.partitions
        )

    @property
    def changelogs(self) -> tuple[str, ...]:
        """The tables' changelogs."""
        return tuple(changelog_name(self.group_id, table) for table in TABLES)


class BenchStage:
    """The topics of one run, with the clients that load and read them; see ``open_stage``."""

    def __init__(
        self, place: Setup, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer
    ) -> None:
        self.place = place
        self._admin = admin
        self._consumer = consumer

    async def load(self, deliveries: Sequence[RecordedDelivery]) -> None:
        """Append the deliveries to the log of record with keys and headers, as ingress does."""
        bootstrap = self.place.bootstrap
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, **LOAD_OPTIONS) as producer:
            for some in _parts(deliveries, _LOADED_AT_ONCE):
                records = [OutRecord(each.key, each.body, each.headers) for each in some]
                await send_by_key(
                    producer, self.place.names.webhooks, records, self.place.partitions
                )

    async def progress(self) -> list[tuple[int, int]]:
        """Return, for each hop, the number of committed records and the total number of records.

        The commits are read before the ends of the topics, and a hop writes its outputs before it
        commits its input. So if every hop has committed up to the end, everything is folded.
        """
        committed = await self._admin.list_consumer_group_offsets(self.place.group_id)
        hops = self.place.names.hops
        ends = await self._consumer.end_offsets(self._partitions(*hops))
        done = dict.fromkeys(hops, 0)
        total = dict.fromkeys(hops, 0)
        for tp, end in ends.items():
            done[tp.topic] += max(committed[tp].offset, 0) if tp in committed else 0
            total[tp.topic] += end
        return [(done[topic], total[topic]) for topic in hops]

    async def count(self, *topics: str) -> int:
        """Return the number of records that were written to the topics."""
        return sum((await self._consumer.end_offsets(self._partitions(*topics))).values())

    async def last_written_s(self) -> float:
        """Return the Unix time in seconds at which the last order document was written.

        The time is the latest timestamp of the partitions' last records, in whole milliseconds.
        This timestamp is the time of the write only if the broker has the settings in ``BROKER``.
        """
        topic = self.place.names.orders
        ends = {number: end for number, end in (await self._ends(topic)).items() if end}
        starts = {number: end - 1 for number, end in ends.items()}
        records = read_ranges(self._consumer, topic, starts, ends)
        return max([each.timestamp async for _, some in records for each in some], default=0) / 1000

    async def latest(self, topic: str) -> dict[bytes, bytes | None]:
        """Return the last value of each key of a topic; ``None`` is a tombstone."""
        ends = await self._ends(topic)
        records = read_ranges(self._consumer, topic, dict.fromkeys(ends, 0), ends)
        return {each.key: each.value async for _, some in records for each in some}

    async def members(self) -> int:
        """Return the number of workers in the group; 0 while the group rebalances."""
        [answer] = await self._admin.describe_consumer_groups([self.place.group_id])
        [(_, _, state, _, _, members, *_)] = answer.groups
        return len(members) if state == "Stable" else 0

    def _partitions(self, *topics: str) -> list[TopicPartition]:
        return [TopicPartition(t, p) for t in topics for p in range(self.place.partitions)]

    async def _ends(self, topic: str) -> dict[int, int]:
        ends = await self._consumer.end_offsets(self._partitions(topic))
        return {tp.partition: end for tp, end in ends.items()}


@asynccontextmanager
async def open_stage(place: Setup) -> AsyncIterator[BenchStage]:
    """Create a run's topics, with the project's own settings; delete them after the run.

    If the topics were kept, the broker would have more work in every later run.
    """
    await ensure_topics(place.settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await admin.start()
    try:
        await consumer.start()
        try:
            yield BenchStage(place, admin, consumer)
        finally:
            await consumer.stop()
        await _delete_topics(admin, place)
    finally:
        await admin.close()


async def _delete_topics(admin: AIOKafkaAdminClient, place: Setup) -> None:
    # A changelog's name begins with the group's name, which contains the prefix. So the prefix is
    # not always at the start of a changelog's name.
    mine = [topic for topic in await admin.list_topics() if place.prefix in topic]
    await admin.delete_topics(mine)


def _parts(items: Iterable[RecordedDelivery], size: int) -> Iterator[list[RecordedDelivery]]:
    remaining = iter(items)
    while part := list(islice(remaining, size)):
        yield part
