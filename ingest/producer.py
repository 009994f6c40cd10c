"""Opens and closes aiokafka's idempotent producer, and asks Kafka whether it accepts appends.

Input: settings. Output: a started producer, for the length of a ``with`` block. Invariant: every
wait has a time limit. aiokafka 0.14 retries an idempotent producer's batch forever, so ``stop``
waits forever while Kafka is down. A refused batch also leaves a gap in its partition's sequence
numbers, so the broker refuses every later batch. The remedy is a new producer, or a new id for this
producer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.producer.message_accumulator import BatchBuilder

from ingest.settings import IngestSettings
from ledger.topics import MAX_RECORD_BYTES, TopicNames, log_topics
from runtime.fault import Fault
from runtime.kafka.administration import UNREACHED, advertised_by, unreachable
from runtime.kafka.internals import forget_identity, put_away
from runtime.kafka.topic_looks import Made, TopicsError, look_at_topics
from runtime.kafka.topic_states import most_bytes

# If a connection is cut silently, its request is given up after this share of the time in which a
# delivery must be answered. So a retry on a new connection can succeed before the answer is due.
_REQUEST_SHARE: Final = 0.3
# Records that arrive while a request is under way go out together in the next request. A record
# larger than this size gets a batch of its own.
_BATCH_BYTES: Final = 256 * 1024
_UNCOMPRESSED: Final = 0
# When a producer is stopped, its last requests get this share of the time in which a delivery must
# be answered. This share is a little more than the share that one request may take.
_PUT_AWAY_SHARE: Final = 0.4
# A readiness check waits this long for Kafka's answer.
_METADATA_WITHIN_S: Final = 2.0


def producer_options(settings: IngestSettings) -> dict[str, Any]:
    """Return the options that write each record exactly once, to every in-sync replica."""
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
    """A producer whose batches stay within the size limit of their topic."""

    def create_batch_for(self, limit_bytes: int) -> BatchBuilder:
        """Return an empty batch; only its first record may exceed the batch's size limit."""
        return BatchBuilder(min(limit_bytes, _BATCH_BYTES), _UNCOMPRESSED)

    def renew_identity(self) -> None:
        """Write under a new producer id from the next batch on, with sequence numbers from 0.

        A refused batch leaves a gap in its partition's sequence numbers, and the broker would
        refuse every later batch because of the gap.
        """
        forget_identity(self)


@contextlib.asynccontextmanager
async def open_producer(settings: IngestSettings) -> AsyncIterator[LogProducer]:
    """Start ingress' producer, and stop it at the end of the ``with`` block.

    Raise ``TopicsError`` if Kafka answers, but a broker can't be reached at its advertised address.
    """
    producer = LogProducer(**producer_options(settings))
    try:
        async with started(producer, settings.answer_within_s):
            yield producer
    except (TimeoutError, *UNREACHED) as error:
        if advertised := advertised_by(producer.client, settings):
            raise TopicsError(unreachable(settings, error, advertised=advertised)) from error
        raise


@contextlib.asynccontextmanager
async def started(producer: AIOKafkaProducer, within_s: float) -> AsyncIterator[None]:
    """Start a producer, and stop it at the end; raise ``KafkaError`` or ``TimeoutError``."""
    try:
        async with asyncio.timeout(within_s):
            await producer.start()
        # Let the sender's task run once, because closing a sender whose task has never run raises
        # CancelledError.
        await asyncio.sleep(0)
        yield
    finally:
        await put_away(producer, within_s * _PUT_AWAY_SHARE)


class Condition(NamedTuple):
    """The state of a log that accepts deliveries.

    ``partitions`` is the ledger's number of partitions. ``limits_bytes`` has the size of the
    largest batch that each topic accepts. ``faults`` are wrong settings that make brokers refuse
    some records.
    """

    partitions: int
    limits_bytes: Mapping[str, int]
    faults: Sequence[Fault]


async def look_at_log(client: AIOKafkaClient, names: TopicNames) -> Condition | Fault:
    """Ask Kafka whether deliveries can be kept; return the log's condition, or the fault.

    A fault with a remedy lasts until an operator acts.
    """
    try:
        async with asyncio.timeout(_METADATA_WITHIN_S):
            seen = await look_at_topics(client, names, log_topics(names), Made())
    except TopicAuthorizationFailedError as error:
        return Fault(
            f"Kafka does not show the settings of {error.args[0]}",
            "give this user DescribeConfigs on the topic",
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
        # Each topic has at least the ledger's number of partitions; any further partitions are
        # unused.
        min(len(state.partitions) for state in seen.states),
        {state.name: most_bytes(state.config) for state in seen.states},
        seen.faults,
    )
