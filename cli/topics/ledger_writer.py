"""Opens the producer that commands use to write to a ledger.

The producer is idempotent and waits for the acknowledgement of every in-sync replica. Every wait
has a time limit.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, KafkaError

from cli.errors import NotWrittenError
from ingest.producer import started
from ledger.topics import MAX_RECORD_BYTES
from runtime.kafka.batches import ACKNOWLEDGED_WITHIN_S
from runtime.kafka.connection import KafkaSettings

_BATCH_BYTES: Final = 256 * 1024
_STARTED_WITHIN_S: Final = 15.0


@asynccontextmanager
async def open_writer(settings: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    """Connect a producer; raise ``NotWrittenError`` if Kafka does not accept its records."""
    producer = AIOKafkaProducer(
        **settings.client_options(),
        client_id="plexy-ledger-cli",
        acks="all",
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,
        max_request_size=MAX_RECORD_BYTES,
    )
    with _explained():
        async with started(producer, _STARTED_WITHIN_S):
            yield producer


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise NotWrittenError(
            f"Kafka did not acknowledge within {ACKNOWLEDGED_WITHIN_S:.0f} s: check the brokers, "
            "and run the command again"
        ) from error
    except InvalidTimestampError as error:
        raise NotWrittenError(
            "Kafka refused a record because of its time. Set message.timestamp.before.max.ms and "
            "message.timestamp.after.max.ms of the topic to 9223372036854775807, "
            "and run the command again"
        ) from error
    except KafkaError as error:
        raise NotWrittenError(f"Kafka refused the records: {error!r}") from error
