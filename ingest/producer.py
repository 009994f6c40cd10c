"""Opens and closes the idempotent producer of aiokafka 0.14, and asks whether it can append.

Input: settings. Output: a started producer, for the length of a ``with`` block. Invariant: no wait
is endless. aiokafka's own may be: an idempotent producer retries a batch forever, so ``stop`` waits
forever while Kafka is down. And a refused batch leaves a gap in its partition's sequence numbers,
so that every later batch is refused too. The remedy is a new producer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.producer.message_accumulator import BatchBuilder

from ingest.settings import IngestSettings
from ledger.topics import MAX_RECORD_BYTES, TopicNames, log_topics
from runtime.kafka.internals import forget_identity, put_away
from runtime.kafka.topic_states import Fault, most_bytes, read_configs, setting_faults
from runtime.kafka.topics import partition_faults

# A request that is lost with a silently cut connection is given up early enough to be retried on a
# new connection before the delivery's answer is due.
_REQUEST_SHARE: Final = 0.3
# Records that arrive while a request is under way go out together in the next one. A record larger
# than this makes a batch of its own.
_BATCH_BYTES: Final = 256 * 1024
_UNCOMPRESSED: Final = 0
# A producer's last requests get this long to end by themselves: a little more than one request.
_PUT_AWAY_SHARE: Final = 0.4
# A readiness check waits this long for Kafka's answer.
_METADATA_WITHIN_S: Final = 2.0


def producer_options(settings: IngestSettings) -> dict[str, Any]:
    """Return the options by which every in-sync replica has each record exactly once."""
    return {
        **settings.client_options(),
        "client_id": "plexy-ledger-ingest",
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_request_size": MAX_RECORD_BYTES,
        "request_timeout_ms": int(settings.answer_within_s * _REQUEST_SHARE * 1000),
    }


class LogProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer whose batches are no larger than their topic accepts."""

    def create_batch_for(self, limit_bytes: int) -> BatchBuilder:
        """Return an empty batch with a size limit; its first record may be larger."""
        return BatchBuilder(min(limit_bytes, _BATCH_BYTES), _UNCOMPRESSED)

    def renew_identity(self) -> None:
        """Write under a new producer id from the next batch on.

        A batch that the broker refused leaves a gap in its partition's sequence numbers, and the
        broker would refuse every later batch too. The numbers of a new id begin at 0.
        """
        forget_identity(self)


@contextlib.asynccontextmanager
async def open_producer(settings: IngestSettings) -> AsyncIterator[LogProducer]:
    """Start ingress' producer, and stop it at the end of the block."""
    producer = LogProducer(**producer_options(settings))
    async with started(producer, settings.answer_within_s):
        yield producer


@contextlib.asynccontextmanager
async def started(producer: AIOKafkaProducer, within_s: float) -> AsyncIterator[None]:
    """Start a producer, and stop it at the end; raise ``KafkaError`` or ``TimeoutError``."""
    try:
        async with asyncio.timeout(within_s):
            await producer.start()
        # Closing a sender whose task has never run raises CancelledError.
        await asyncio.sleep(0)
        yield
    finally:
        await put_away(producer, within_s * _PUT_AWAY_SHARE)


class Trouble(NamedTuple):
    """Why nothing can be appended. Trouble with a remedy lasts until an operator acts."""

    what: str
    remedy: str = ""

    @property
    def reason(self) -> str:
        """The sentence that senders and probes receive."""
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


class Condition(NamedTuple):
    """How the log takes deliveries.

    ``partitions`` is the number that the ledger was made with. ``limits_bytes`` has the largest
    batch that each topic takes, and ``faults`` the settings by which some records are refused.
    """

    partitions: int
    limits_bytes: Mapping[str, int]
    faults: Sequence[Fault]


async def look_at_log(client: AIOKafkaClient, names: TopicNames) -> Condition | Trouble:
    """Ask Kafka itself whether deliveries can be kept, and return how, or what is wrong."""
    topics = log_topics(names)
    try:
        async with asyncio.timeout(_METADATA_WITHIN_S):
            cluster = await client.fetch_all_metadata()
            if missing := [topic.name for topic in topics if not _partitions(cluster, topic.name)]:
                return Trouble(
                    f"the topic {missing[0]} does not exist", "`plexy-ledger topics` creates it"
                )
            configs = await read_configs(client, [topic.name for topic in topics])
    except TopicAuthorizationFailedError as error:
        return Trouble(
            f"{error.args[0]} does not show its settings", "give this user DescribeConfigs on it"
        )
    except (KafkaError, OSError, TimeoutError):
        configs = None
    if configs is None:
        return Trouble("Kafka does not answer")
    for fault in _faults(cluster, names, configs):
        return Trouble(fault.what, fault.remedy)
    for topic in topics:
        if (leaderless := _without_leader(cluster, topic.name)) is not None:
            return leaderless
    return Condition(
        names.recorded_partitions(cluster.topics())[0],
        {topic.name: most_bytes(configs[topic.name]) for topic in topics},
        [fault for fault in _setting_faults(names, configs) if fault.refuses_some],
    )


def _faults(
    cluster: ClusterMetadata, names: TopicNames, configs: Mapping[str, Mapping[str, str | None]]
) -> Iterator[Fault]:
    topics = log_topics(names)
    if not names.recorded_partitions(cluster.topics()):
        yield Fault(
            f"no topic {names.made_with('…')} records the number of partitions",
            "`plexy-ledger topics` creates it; its name must be visible to this user (Describe)",
        )
    counts = {topic.name: len(_partitions(cluster, topic.name)) for topic in topics}
    yield from partition_faults(names, cluster.topics(), topics, counts)
    yield from (each for each in _setting_faults(names, configs) if not each.refuses_some)


def _setting_faults(
    names: TopicNames, configs: Mapping[str, Mapping[str, str | None]]
) -> Iterator[Fault]:
    for topic in log_topics(names):
        yield from setting_faults(topic.name, configs[topic.name], topic.settings)


def _partitions(cluster: ClusterMetadata, topic: str) -> set[int]:
    return cluster.partitions_for_topic(topic) or set()


def _without_leader(cluster: ClusterMetadata, topic: str) -> Trouble | None:
    led = cluster.available_partitions_for_topic(topic) or set()
    leaderless = _partitions(cluster, topic) - led
    if leaderless:
        return Trouble(f"partition {min(leaderless)} of the topic {topic} has no leader")
    return None
