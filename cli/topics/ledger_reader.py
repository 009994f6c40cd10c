"""Reads what a ledger keeps in Kafka, beside the programs that work on it.

In: Kafka's settings, and the names of one ledger. Out: how far topics reach, how far the workers
have folded, and records in batches. Never: a consumer group, a commit, or any other write; and
never a wait without a bound.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from cli.errors import NotReadError
from cli.printing import Heard
from cli.topics.progress import Report, wait_for_hop
from cli.topics.reading import Lag, committed, lags, partitions_of, reading, summed
from ledger.digest import RESERVED, ChangelogDigest
from ledger.topics import TABLES, TableName, TopicNames, all_topics, changelog_name
from runtime.fold_rules import FoldSettings, difference_from_group
from runtime.kafka.topics import TopicsError, TopicSettings, partition_faults

Offsets = Mapping[int, int]
"""An offset for each partition."""

_FETCH_MS: Final = 500
# A batch that was packed may hold millions of records.
_MOST_AT_ONCE: Final = 10_000
# aiokafka fetches ahead, also behind the end: the next topic's fetch waits for that one's answer.
_FETCH_MAX_WAIT_MS: Final = 20
# A broker's restart takes seconds, and the client retries meanwhile.
_READ_WITHIN_S: Final = 60.0


class LedgerNames(msgspec.Struct, frozen=True):
    """What one ledger calls its topics, its tables' changelogs and its workers' group."""

    topics: TopicNames
    group: str

    @classmethod
    def of(cls, settings: TopicSettings) -> "LedgerNames":
        """Return the names that the programs use with these settings."""
        return cls(settings.names, settings.group_id)

    @property
    def hops(self) -> tuple[str, str, str]:
        """What the workers read, in the path's order."""
        return (self.topics.webhooks, self.topics.events, self.topics.payments)

    def changelog(self, table: TableName) -> str:
        """Return the topic that a table is written to before anything else."""
        return changelog_name(self.group, table)

    @property
    def changelogs(self) -> frozenset[str]:
        """The changelogs of all tables."""
        return frozenset(map(self.changelog, TABLES))

    def is_row(self, topic: str, key: bytes) -> bool:
        """Return whether a record is about the ledger, and not the workers' own note."""
        return topic not in self.changelogs or not key.startswith(RESERVED)


class LedgerReader:
    """The clients that read one ledger; see ``open_reader``.

    Offsets are asked for by a client of their own: a broker answers one client's requests in their
    order, and a fetch for what is not there yet would hold them up.
    """

    def __init__(
        self,
        names: LedgerNames,
        admin: AIOKafkaAdminClient,
        offsets: AIOKafkaConsumer,
        consumer: AIOKafkaConsumer,
    ) -> None:
        self.names = names
        self._admin = admin
        self._offsets = offsets
        self._consumer = consumer

    async def cluster_id(self) -> str:
        """Return the id of the cluster that is read."""
        return str((await self._admin.describe_cluster())["cluster_id"])

    async def made_with(self) -> int:
        """Return the number of partitions that the ledger was made with.

        The log may have been given more since.
        """
        existing = set(await self._admin.list_topics())
        names = self.names.topics
        own = [
            topic.name for topic in all_topics(names, self.names.group) if topic.name in existing
        ]
        counts = {topic: len(await self._partitions(topic)) for topic in own}
        for fault in partition_faults(names, existing, [], counts):
            raise TopicsError(str(fault))
        return min(names.recorded_partitions(existing) or counts.values(), default=0)

    async def difference_from_workers(self, settings: FoldSettings) -> str:
        """Return how the workers that run now fold otherwise than these settings; empty if not."""
        return await difference_from_group(self._admin, settings)

    async def begins(self, topic: str) -> Offsets:
        """Return each partition's first offset."""
        return _by_number(await self._offsets.beginning_offsets(await self._partitions(topic)))

    async def ends(self, topic: str) -> Offsets:
        """Return, for each partition, the offset after its last record."""
        return _by_number(await self._offsets.end_offsets(await self._partitions(topic)))

    async def since(self, topic: str, time_ms: int) -> Offsets:
        """Return the first offset of each partition that is of a time or later; else its end."""
        partitions = await self._partitions(topic)
        found = await self._offsets.offsets_for_times(dict.fromkeys(partitions, time_ms))
        ends = await self.ends(topic)
        return {tp.partition: at.offset if at else ends[tp.partition] for tp, at in found.items()}

    async def read(
        self, topic: str, starts: Offsets, ends: Offsets
    ) -> AsyncGenerator[tuple[int, list[Any]], None]:
        """Yield each partition's records from its start up to its end, some at a time."""
        begins = await self.begins(topic)
        position = {p: max(starts.get(p, 0), begins[p]) for p in ends}
        while unread := [p for p, end in ends.items() if position[p] < end]:
            partitions = [TopicPartition(topic, p) for p in unread]
            self._consumer.assign(partitions)
            for tp in partitions:
                self._consumer.seek(tp, position[tp.partition])
            async for number, records in self._fetch(topic, position, ends):
                yield number, records

    async def latest(
        self, topic: str, number: int, heard: Heard, digest: ChangelogDigest | None = None
    ) -> dict[bytes, bytes]:
        """Return the last value of each key of a partition; the digest takes every record.

        Reading continues until no more records have come, because compaction may have removed a
        value in favour of a newer one that was written after the first end.
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
        """Wait until the workers have folded all that is in the log now; return its ends.

        Each hop is waited for up to the end that its log has when the wait for the hop begins.
        Later records are not waited for. Raises ``NotFoldedError`` after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        group = self.names.group
        late = f" by the workers of group {group}: start a worker, or give it more time"
        settled = await self.ends(self.names.topics.webhooks)
        for topic in self.names.hops:
            measure = partial(self._lag, topic, await self.ends(topic))
            await wait_for_hop(measure, deadline, report, late)
        return settled

    async def folded(self) -> Offsets:
        """Return up to where the log is folded, without a wait.

        That is nowhere while a later hop has something to do: it may be of any record.
        """
        at = await self.committed(self.names.topics.webhooks)
        for topic in self.names.hops[1:]:
            lag = await self._lag(topic, await self.ends(topic))
            if lag.done < lag.total:
                return {}
        return at

    async def lag(self) -> int:
        """Count the records of the three hops that the workers have not folded."""
        total = 0
        for topic in self.names.hops:
            lag = await self._lag(topic, await self.ends(topic))
            total += lag.total - lag.done
        return total

    async def _lag(self, topic: str, ends: Offsets) -> Lag:
        found = await lags(self._admin, self._offsets, self.names.group, topic, ends)
        return summed(topic, found)

    async def committed(self, topic: str) -> Offsets:
        """Return up to where the workers have committed; partitions without a commit are absent."""
        return await committed(self._admin, self.names.group, await self._partitions(topic))

    async def _fetch(
        self, topic: str, position: dict[int, int], ends: Offsets
    ) -> AsyncIterator[tuple[int, list[Any]]]:
        """Yield what comes until one of the assigned partitions is read to its end."""
        assigned = [tp.partition for tp in self._consumer.assignment()]
        deadline = time.monotonic() + _READ_WITHIN_S
        while all(position[number] < ends[number] for number in assigned):
            fetched = await self._consumer.getmany(timeout_ms=_FETCH_MS, max_records=_MOST_AT_ONCE)
            for tp, records in fetched.items():
                position[tp.partition] = records[-1].offset + 1
                within = [each for each in records if each.offset < ends[tp.partition]]
                deadline = time.monotonic() + _READ_WITHIN_S
                yield tp.partition, within
            if not fetched:
                # A compacted topic, or one with transactions, may end with an offset but no record.
                for tp in self._consumer.assignment():
                    position[tp.partition] = await self._consumer.position(tp)
            if time.monotonic() > deadline:
                raise NotReadError(
                    f"nothing came from {topic} in {_READ_WITHIN_S:.0f} s, at offsets {position} "
                    f"of {dict(ends)}: look at the broker's log"
                )

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        return await partitions_of(self._admin, topic)


@asynccontextmanager
async def open_reader(settings: TopicSettings) -> AsyncIterator[LedgerReader]:
    """Connect; disconnect after the block."""
    async with (
        reading(settings) as (admin, offsets),
        reading(settings, fetch_max_wait_ms=_FETCH_MAX_WAIT_MS) as (_, consumer),
    ):
        yield LedgerReader(LedgerNames.of(settings), admin, offsets, consumer)


def sizes(begins: Offsets, ends: Offsets, after: Callable[[int], int] = lambda _p: 0) -> int:
    """Count the offsets between beginnings, or where one has read up to, and ends."""
    return sum(max(end - max(begins[p], after(p)), 0) for p, end in ends.items())


def _by_number(offsets: Mapping[TopicPartition, int]) -> Offsets:
    return {tp.partition: offset for tp, offset in offsets.items()}
