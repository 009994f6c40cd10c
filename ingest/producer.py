"""The idempotent producer of aiokafka 0.14: opened, asked whether it can append, and put away.

In: settings. Out: a started producer, for as long as a ``with`` block lasts. Never: a wait without
an end. aiokafka has some: an idempotent producer tries a batch again for ever, so that ``stop``
waits for ever while Kafka is away; and after a batch that the broker refused, its partition's
sequence numbers have a gap, and every later batch is refused too. The remedy is a new producer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager

from ingest.settings import IngestSettings
from ledger.topics import MAX_RECORD_BYTES, TopicNames, log_topics
from runtime.kafka.topic_looks import Made, look_at_topics
from runtime.kafka.topic_states import Fault, most_bytes

# A request that gets lost (with a connection that is cut without a word) is given up in time to be
# tried again, on a new connection, before the delivery's answer is due.
_REQUEST_SHARE: Final = 0.3
# What arrives while a request is under way goes out together in the next one. A record larger than
# this makes a batch of its own.
_BATCH_BYTES: Final = 256 * 1024
_UNCOMPRESSED: Final = 0
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
        "max_request_size": MAX_RECORD_BYTES,
        "request_timeout_ms": int(settings.answer_within_s * _REQUEST_SHARE * 1000),
    }


class LogProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer whose batches have the size that their topic takes."""

    def create_batch_for(self, limit_bytes: int) -> BatchBuilder:
        """Return an empty batch that keeps to a limit; its first record may be larger."""
        return BatchBuilder(min(limit_bytes, _BATCH_BYTES), _UNCOMPRESSED)

    def renew_identity(self) -> None:
        """Write under a new producer id from the next batch on.

        A batch that the broker refused leaves a gap in its partition's sequence numbers, and every
        later one would be refused too. The numbers of a new id begin at 0. Batches that are under
        way keep the id, and the numbers, that they have.
        """
        manager = self._txn_manager
        TransactionManager.__init__(manager, None, manager.transaction_timeout_ms)


@contextlib.asynccontextmanager
async def open_producer(settings: IngestSettings) -> AsyncIterator[LogProducer]:
    """Start ingress' producer and put it away at the end."""
    producer = LogProducer(**producer_options(settings))
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


class Condition(NamedTuple):
    """How the log takes deliveries.

    ``partitions`` is the number that the ledger was made with. ``limits_bytes`` has the largest
    batch that each topic takes, and ``faults`` the settings by which some records are refused.
    """

    partitions: int
    limits_bytes: Mapping[str, int]
    faults: Sequence[Fault]


async def look_at_log(client: AIOKafkaClient, names: TopicNames) -> Condition | Fault:
    """Ask Kafka itself whether deliveries can be kept, and return how, or what is wrong.

    A fault with a remedy lasts until an operator acts.
    """
    try:
        async with asyncio.timeout(_METADATA_WITHIN_S):
            seen = await look_at_topics(client, names, log_topics(names), Made())
    except TopicAuthorizationFailedError as error:
        return Fault(
            f"{error.args[0]} does not show its settings", "give this user DescribeConfigs on it"
        )
    except (KafkaError, OSError, TimeoutError):
        seen = None
    if seen is None:
        return Fault("Kafka does not answer")
    for fault in (*seen.fatal, *(each for each in seen.faults if not each.refuses_some)):
        return fault
    for state in seen.states:
        for each in state.partitions:
            if each.leader < 0:
                return Fault(f"partition {each.number} of the topic {state.name} has no leader")
    return Condition(
        # All topics have the number that the ledger was made with, or more that nobody uses.
        min(len(state.partitions) for state in seen.states),
        {state.name: most_bytes(state.config) for state in seen.states},
        seen.faults,
    )


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
