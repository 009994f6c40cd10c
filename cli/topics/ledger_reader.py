"""Reads a ledger's topics and the workers' progress in Kafka, while the ledger runs.

The reader has no consumer group and writes nothing. Every wait has a time limit.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from cli.errors import NotFoldedError, NotReadError
from cli.printing import Heard
from cli.topics.lag import Lag, Report, committed, lags, partitions_of, summed
from ledger.digest import RESERVED, ChangelogDigest
from ledger.topics import TABLES, TableName, TopicNames, all_topics, changelog_name
from runtime.fault import Fault
from runtime.fold_rules import FoldSettings, difference_from_group
from runtime.kafka.internals import client_of
from runtime.kafka.reading import StalledError, clients, read_ranges
from runtime.kafka.topic_looks import Examination, TopicsError
from runtime.kafka.topic_metadata import read_topics
from runtime.kafka.topic_records import lost_topics, partition_faults, replaced_topics
from runtime.kafka.topics import TopicSettings, examine

Offsets = Mapping[int, int]
"""An offset for each partition."""

# The longest time for which a broker delays its answer if it has no records. After the last record
# of a range, aiokafka sends one more fetch. The first fetch of the next topic waits until the
# broker has answered that fetch, so the delay is kept short.
_FETCH_MAX_WAIT_MS: Final = 20
# A worker commits twice a second, so asking much more often than that would show nothing new.
_POLL_S: Final = 0.2


class LedgerNames(msgspec.Struct, frozen=True):
    """The names of one ledger's topics, changelogs and consumer group."""

    topics: TopicNames
    group: str

    def changelog(self, table: TableName) -> str:
        """Return the name of a table's changelog."""
        return changelog_name(self.group, table)

    @property
    def changelogs(self) -> frozenset[str]:
        """The changelogs of all tables."""
        return frozenset(map(self.changelog, TABLES))

    def is_row(self, topic: str, key: bytes) -> bool:
        """Return whether a record contains a row rather than a worker's internal value."""
        return topic not in self.changelogs or not key.startswith(RESERVED)


class LedgerReader:
    """The clients that read one ledger; see ``open_reader``.

    ``faults`` names the topics that are lost, or that were deleted and created again. Reading such
    a topic raises ``TopicsError``, because the topic no longer has the records that the ledger
    wrote.

    Two clients are used: ``consumer`` fetches records, and ``offsets`` asks for offsets. A broker
    answers the requests of one client one after another, so a fetch that waits for new records
    would delay the answers about offsets.
    """

    def __init__(
        self,
        names: LedgerNames,
        admin: AIOKafkaAdminClient,
        offsets: AIOKafkaConsumer,
        consumer: AIOKafkaConsumer,
        faults: Mapping[str, Fault],
    ) -> None:
        self.names = names
        self._faults = faults
        self._admin = admin
        self._offsets = offsets
        self._consumer = consumer

    async def cluster_id(self) -> str:
        """Return the id of the Kafka cluster."""
        return str((await self._admin.describe_cluster())["cluster_id"])

    async def made_with(self) -> int:
        """Return the number of partitions with which the ledger was created.

        After that, an operator may have added partitions to the log.
        """
        existing = set(await self._admin.list_topics())
        names = self.names.topics
        own = [
            topic.name for topic in all_topics(names, self.names.group) if topic.name in existing
        ]
        counts = {topic: len(await self._partitions(topic)) for topic in own}
        for fault in partition_faults(names, existing, [], counts):
            raise TopicsError(fault)
        return min(names.recorded_partitions(existing) or counts.values(), default=0)

    async def examine(self, settings: TopicSettings) -> Examination:
        """Compare the topics with the expected topics, as every program does."""
        return await examine(self._admin, settings)

    async def difference_from_workers(self, settings: FoldSettings) -> Fault | None:
        """Return how the running workers' settings differ from ``settings``, or ``None``."""
        return await difference_from_group(self._admin, settings)

    async def begins(self, topic: str) -> Offsets:
        """Return each partition's first offset."""
        return _by_number(await self._offsets.beginning_offsets(await self._partitions(topic)))

    async def ends(self, topic: str) -> Offsets:
        """Return, for each partition, the offset after its last record."""
        return _by_number(await self._offsets.end_offsets(await self._partitions(topic)))

    async def since(self, topic: str, time_ms: int) -> Offsets:
        """Return each partition's first offset whose record has this time or a later time.

        If a partition has no such record, its end offset is returned.
        """
        partitions = await self._partitions(topic)
        found = await self._offsets.offsets_for_times(dict.fromkeys(partitions, time_ms))
        ends = await self.ends(topic)
        return {tp.partition: at.offset if at else ends[tp.partition] for tp, at in found.items()}

    async def read(
        self, topic: str, starts: Offsets, ends: Offsets
    ) -> AsyncGenerator[tuple[int, list[Any]], None]:
        """Yield each partition's records from its start up to its end, in batches."""
        begins = await self.begins(topic)
        starts = {p: max(starts.get(p, 0), begins[p]) for p in ends}
        try:
            async for number, records in read_ranges(self._consumer, topic, starts, ends):
                yield number, records
        except StalledError as error:
            raise NotReadError(str(error)) from error

    async def whole(self, topic: str) -> list[Any]:
        """Return all current records of a topic as one list in memory."""
        found = self.read(topic, {}, await self.ends(topic))
        return [record async for _, records in found for record in records]

    async def latest(
        self, topic: str, number: int, heard: Heard, digest: ChangelogDigest | None = None
    ) -> dict[bytes, bytes]:
        """Return the last value of each key of a partition; feed every record to the digest.

        Reading continues until the partition has no more records. Otherwise a key could be missing:
        compaction may have removed its value because of a newer value, which was written after the
        end offset was read.
        """
        values: dict[bytes, bytes] = {}
        start, end = 0, (await self.ends(topic)).get(number, 0)
        while start < end:
            async for _, records in self.read(topic, {number: start}, {number: end}):
                for record in records:
                    key = record.key or b""
                    if digest is not None:
                        digest.take(record.offset, key, values.get(key), record.value)
                    if record.value is None:
                        values.pop(key, None)
                    else:
                        values[key] = record.value
                heard(topic, len(records))
            start, end = end, (await self.ends(topic)).get(number, 0)
        if digest is not None:
            digest.reach(start)
        return {key: value for key, value in values.items() if self.names.is_row(topic, key)}

    async def settle(self, timeout_s: float, report: Report = lambda _lag: None) -> Offsets:
        """Wait until the workers have folded the current log; return the log's end offsets.

        The three agents (hops) of the workers fold one topic each. A hop commits a record's offset
        only after Kafka has acknowledged the record's outputs. So after a hop has folded the
        current records of its topic, the next hop's topic has all outputs of these records. The
        method does not wait for later records. Raises ``NotFoldedError`` after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        settled = await self.ends(self.names.topics.webhooks)
        for topic in self.names.topics.hops:
            await self._wait_for(topic, await self.ends(topic), deadline, report)
        return settled

    async def folded(self) -> Offsets:
        """Return the offsets up to which the log is folded now.

        While a later hop lags, the result is empty: no offset of the log is known to be folded,
        because any record may have outputs that the later hop has not folded.
        """
        at = await self.committed(self.names.topics.webhooks)
        for topic in self.names.topics.hops[1:]:
            lag = await self._lag(topic, await self.ends(topic))
            if lag.done < lag.total:
                return {}
        return at

    async def lag(self) -> int:
        """Count the records of the three hops that the workers have not folded."""
        total = 0
        for topic in self.names.topics.hops:
            lag = await self._lag(topic, await self.ends(topic))
            total += lag.total - lag.done
        return total

    async def _wait_for(self, topic: str, ends: Offsets, deadline: float, report: Report) -> None:
        while True:
            lag = await self._lag(topic, ends)
            report(lag)
            if lag.done >= lag.total:
                return
            if time.monotonic() > deadline:
                raise NotFoldedError(
                    f"{lag.total - lag.done} of {lag.total} records of {topic} are not folded by "
                    f"the workers of group {self.names.group}: start a worker, or give the workers "
                    "more time"
                )
            await asyncio.sleep(_POLL_S)

    async def _lag(self, topic: str, ends: Offsets) -> Lag:
        found = await lags(self._admin, self._offsets, self.names.group, topic, ends)
        return summed(topic, found)

    async def committed(self, topic: str) -> Offsets:
        """Return the offsets that the workers have committed, by partition."""
        return await committed(self._admin, self.names.group, await self._partitions(topic))

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        if (fault := self._faults.get(topic)) is not None:
            raise TopicsError(fault)
        return await partitions_of(self._admin, topic)


@asynccontextmanager
async def open_reader(
    settings: TopicSettings, *, restores_log: bool = False
) -> AsyncIterator[LedgerReader]:
    """Connect the clients, and disconnect them after the block.

    Only the program that restores the log sets ``restores_log``: at that time, the id of the log's
    topic is not recorded yet, so the log must not count as lost or replaced.
    """
    async with (
        clients(settings) as (admin, offsets),
        clients(settings, fetch_max_wait_ms=_FETCH_MAX_WAIT_MS) as (_, consumer),
    ):
        names = LedgerNames(settings.names, settings.group_id)
        found = await read_topics(client_of(admin))
        faults = {
            **replaced_topics(names.topics, found, settings.topics),
            **lost_topics(names.topics, found, settings.topics),
        }
        if restores_log:
            faults.pop(names.topics.webhooks, None)
        yield LedgerReader(names, admin, offsets, consumer, faults)


def sizes(begins: Offsets, ends: Offsets) -> int:
    """Count the offsets from the beginnings up to the ends."""
    return sum(max(end - begins[number], 0) for number, end in ends.items())


def _by_number(offsets: Mapping[TopicPartition, int]) -> Offsets:
    return {tp.partition: offset for tp, offset in offsets.items()}
