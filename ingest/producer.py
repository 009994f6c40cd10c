"""The idempotent producer of aiokafka 0.14: opened, asked whether it can append, and put away.

In: settings. Out: a started producer, for as long as a ``with`` block lasts. Never: a wait without
an end. aiokafka has some: an idempotent producer tries a batch again for ever, so that ``stop``
waits for ever while Kafka is away; and after a batch that the broker refused, its partition's
sequence numbers have a gap, and every later batch is refused too. The remedy is a new producer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError

from ingest.settings import IngestSettings
from ledger.topics import MAX_RECORD_BYTES

# A request that gets lost (with a connection that is cut without a word) is given up in time to be
# tried again, on a new connection, before the delivery's answer is due.
_REQUEST_SHARE: Final = 0.3
# What arrives while a request is under way goes out together in the next one. A record larger than
# this makes a batch of its own, so no batch is larger than the topics allow.
_BATCH_BYTES: Final = 256 * 1024
# What a producer's last requests get to end by themselves: a little more than one request has.
_PUT_AWAY_SHARE: Final = 0.4
# How long a readiness check waits for Kafka's answer.
_METADATA_WITHIN_S: Final = 2.0


def producer_options(settings: IngestSettings) -> dict[str, Any]:
    """Return how the producer keeps its promise: every replica in sync has it, and has it once."""
    return {
        **settings.client_options(),
        "client_id": "plexy-ledger-ingest",
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_batch_size": _BATCH_BYTES,
        "max_request_size": MAX_RECORD_BYTES,
        "request_timeout_ms": int(settings.answer_within_s * _REQUEST_SHARE * 1000),
    }


@contextlib.asynccontextmanager
async def open_producer(settings: IngestSettings) -> AsyncIterator[AIOKafkaProducer]:
    """Start ingress' producer and put it away at the end."""
    producer = AIOKafkaProducer(**producer_options(settings))
    async with started(producer, settings.answer_within_s):
        yield producer


@contextlib.asynccontextmanager
async def started(producer: AIOKafkaProducer, within_s: float) -> AsyncIterator[None]:
    """Start a producer and put it away at the end; ``KafkaError``, ``TimeoutError`` if it can't."""
    try:
        async with asyncio.timeout(within_s):
            await producer.start()
        # A sender that is closed before its task has run once raises CancelledError.
        await asyncio.sleep(0)
        yield
    finally:
        await _put_away(producer, within_s * _PUT_AWAY_SHARE)


async def trouble_with(producer: AIOKafkaProducer, topics: Sequence[str]) -> str | None:
    """Ask Kafka itself whether these topics can be appended to; return what is wrong."""
    try:
        async with asyncio.timeout(_METADATA_WITHIN_S):
            cluster = await producer.client.fetch_all_metadata()
    except (KafkaError, OSError, TimeoutError):
        return "Kafka does not answer"
    return next(filter(None, (_trouble_with_topic(cluster, topic) for topic in topics)), None)


def _trouble_with_topic(cluster: ClusterMetadata, topic: str) -> str | None:
    partitions = cluster.partitions_for_topic(topic)
    if not partitions:
        return f"the topic {topic} does not exist; `plexy-ledger topics` creates it"
    leaderless = partitions - (cluster.available_partitions_for_topic(topic) or set())
    if leaderless:
        return f"partition {min(leaderless)} of the topic {topic} has no leader"
    return None


async def _put_away(producer: AIOKafkaProducer, within_s: float) -> None:
    """Stop a producer in whatever state it is, and let go of every record it still holds.

    The order matters. The sender first: its requests end, by an answer or by their own time-out,
    and what they carried goes back to the accumulator. Then what is left there is forgotten;
    whoever waits for it does so no longer than its own deadline. Then nothing keeps ``stop`` from
    closing the connections. There is no public way to the first two. (``fail_all`` would tell the
    waiting ones sooner, but raises errors in callbacks for every batch that had been tried.)
    """
    try:
        # The producer is given up, in whatever way its sender ends.
        with contextlib.suppress(Exception):
            # Cancelled at the end of its time, it cancels the sender's requests too.
            async with asyncio.timeout(within_s):
                await producer._sender.close()  # noqa: SLF001
    finally:
        producer._message_accumulator._batches.clear()  # noqa: SLF001
        producer._message_accumulator._pending_batches.clear()  # noqa: SLF001
        await producer.stop()
