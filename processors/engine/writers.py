"""Writers: who may write what follows from a partition, held by the broker.

In: chunks, and record batches that follow from them. Out: the batches in Kafka, acknowledged.
Never: a record of a worker that has lost the partition, behind one of the worker that has it now,
however late it arrives.

Each partition that is read has an identity, a transactional id. Whoever is given the partition asks
the broker for the identity's next epoch and writes under it, and from a log that has seen the new
epoch the broker refuses the old one (``ProducerFenced``). Only the fencing is used: there are no
transactions, and so no markers in the topics.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import RecordMetadata, TopicPartition
from faust.types import TP, AppT

from processors.engine.chunk import ChunkConsumer, RevokedError, Tenure
from processors.engine.internals import client_of
from processors.engine.membership import clock_s
from runtime.kafka.batches import ACKNOWLEDGED_WITHIN_S, BatchRefusedError
from runtime.kafka.internals import fail_batches, wait_on_metadata
from runtime.kafka.topic_states import most_bytes, read_configs, size_fault
from runtime.kafka.topics import answer

log = structlog.get_logger(__name__)

# As large as the topics allow would be one batch for a chunk; several let the broker begin earlier.
_BATCH_BYTES: Final = 512 * 1024
_UNCOMPRESSED: Final = 0
_REQUEST_WITHIN_S: Final = 20.0
_RETRY_AFTER_MS: Final = 100
# Kafka forgets an identity that nobody asks for within six hours or more, see
# ``runtime.kafka.identities``. An epoch is a number of 15 bits, of which this takes 24 a day.
_RENEWED_AFTER_S: Final = 3600.0


class RecordTooLargeError(ValueError):
    """A topic takes no record of this size; the message names its key, and the remedy."""


class Writer:
    """Writes batches under one epoch of an identity; the same calls as aiokafka's producer.

    ``batch_bytes`` bounds the batches that are made from now on.
    """

    def __init__(
        self, client: AIOKafkaClient, identity: str, batch_bytes: int = _BATCH_BYTES
    ) -> None:
        self.born_s = clock_s()
        self.batch_bytes = batch_bytes
        self._client = client
        self._identity = TransactionManager(identity, int(_REQUEST_WITHIN_S * 1000))
        self._accumulator = MessageAccumulator(
            client.cluster, _BATCH_BYTES, 0, ACKNOWLEDGED_WITHIN_S, txn_manager=self._identity
        )
        self._sender = Sender(
            client,
            acks=-1,
            txn_manager=self._identity,
            message_accumulator=self._accumulator,
            retry_backoff_ms=_RETRY_AFTER_MS,
            request_timeout_ms=int(_REQUEST_WITHIN_S * 1000),
        )

    async def start(self) -> None:
        """Ask the broker for the next epoch: from now on it is ours, and any other is old.

        Where the broker that is asked dies meanwhile, others are asked; the caller bounds the time.
        """
        while True:
            try:
                await self._sender.start()
                break
            except KafkaError as error:
                # aiokafka tries again by itself, but not where a connection ends in the middle of
                # the question who is to be asked; and it hides that error in another one.
                if not isinstance(error.__cause__, KafkaConnectionError):
                    raise
                await asyncio.sleep(_RETRY_AFTER_MS / 1000)
        # With its producer id and epoch it goes on as an idempotent producer: see the module.
        self._identity.transactional_id = None

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch; its first record may be larger than its bound."""
        return BatchBuilder(self.batch_bytes, _UNCOMPRESSED)

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> Awaitable[RecordMetadata]:
        """Begin to write a batch; the future holds when every replica in sync has it."""
        # From here on each refresh of the metadata asks for it too. aiokafka asks for what it once
        # had to wait for: a topic that was known by chance would be gone with the next refresh, and
        # with it the leader that a batch waits for, until somebody writes to that topic again.
        self._client.add_topic(topic)
        await wait_on_metadata(self._client, topic)
        tp = TopicPartition(topic, partition)
        future: Awaitable[RecordMetadata] = await self._accumulator.add_batch(
            batch, tp, ACKNOWLEDGED_WITHIN_S
        )
        return future

    async def close(self) -> None:
        """Let requests that are under way end; whoever waits for others has lost the partition."""
        # A sender's task that has not run yet ends so when it is cancelled.
        with contextlib.suppress(asyncio.CancelledError):
            await self._sender.close()
        fail_batches(self._accumulator, RevokedError("given back while it waited for Kafka"))


async def _write_nothing(_writer: Writer) -> None:
    """Have a writer of the latest epoch, and no more."""


class Writers:
    """The writers of the partitions that this worker reads, one for each, from its first write."""

    def __init__(self, app: AppT, group: str) -> None:
        self._app = app
        self._group = group
        self._batch_bytes = _BATCH_BYTES
        self._writers: dict[TP, Writer] = {}
        # Whoever writes, or renews a writer, holds its partition's lock.
        self._locks: defaultdict[TP, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closing: set[asyncio.Task[None]] = set()

    async def write(self, tenure: Tenure, work: Callable[[Writer], Awaitable[object]]) -> None:
        """Write what follows from a partition; ``RevokedError`` if it is another worker's.

        ``work`` is done again if somebody else took the epoch meanwhile and the group still holds
        the partition to be ours: a worker that stood still before its first write may do that when
        it goes on. It will not write, and we take the epoch back. It is also done again if a topic
        refuses a batch for its size, by a new writer of smaller batches: the refused batch leaves a
        gap in the sequence numbers of its writer, whose later batches would be refused too.
        """
        async with self._locks[tenure.tp]:
            while True:
                writer = await self._writer(tenure)
                try:
                    await work(writer)
                except ProducerFenced:
                    log.warning("fenced", partition=repr(tenure))
                    self._forget(tenure.tp)
                except BatchRefusedError as refused:
                    self._forget(tenure.tp)
                    await self._keep_below(refused)
                else:
                    return

    def bound(self, limit_bytes: int) -> None:
        """Make no batch larger than this from now on."""
        self._batch_bytes = min(limit_bytes, _BATCH_BYTES)
        for writer in self._writers.values():
            writer.batch_bytes = self._batch_bytes

    async def _keep_below(self, refused: BatchRefusedError) -> None:
        """Make smaller batches; ``RecordTooLargeError`` where the refused one is a single record.

        Whoever lowered the topic's limit did it after the last look at the topics.
        """
        topic, client = refused.topic, client_of(self._app)
        configs = await answer(
            lambda: read_configs(client, [topic]), f"the settings of {topic} can't be read"
        )
        limit_bytes = min(most_bytes(configs[topic]), refused.size_bytes - 1)
        if refused.records == 1:
            fault = size_fault(topic, limit_bytes, refused.size_bytes)
            raise RecordTooLargeError(f"key {refused.first_key!r:.80}: {fault}") from refused
        log.warning("batch refused", topic=topic, bytes=refused.size_bytes, limit=limit_bytes)
        self.bound(min(limit_bytes, refused.size_bytes // 2))

    async def renew(self, consumer: ChunkConsumer) -> None:
        """Replace each writer that is due; if Kafka does not answer, it is due at the next call."""
        for tp in list(self._writers):
            # A rebalance may have taken the partition meanwhile.
            if tp in self._writers:
                with contextlib.suppress(RevokedError, KafkaError, TimeoutError):
                    await self.write(Tenure(consumer, tp), _write_nothing)

    def forget(self) -> None:
        """Give up every writer: the partitions may be others' from now on."""
        for tp in list(self._writers):
            self._forget(tp)
        # Work of the former assignment may still hold a lock, and must not hold up the next one.
        self._locks.clear()

    async def close(self) -> None:
        """Give up every writer, and wait until all have ended."""
        self.forget()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _writer(self, tenure: Tenure) -> Writer:
        tenure.ensure_ours()
        held = self._writers.get(tenure.tp)
        if held is not None and clock_s() - held.born_s < _RENEWED_AFTER_S:
            return held
        identity = f"{self._group}-{tenure.tp.topic}-{tenure.tp.partition}"
        writer = Writer(client_of(self._app), identity, self._batch_bytes)
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await writer.start()
                # In this order. The group holds the partition to be ours after we have the epoch:
                # so whoever is given it next asks for an epoch later, and gets a higher one.
                await tenure.confirm_ours()
        except BaseException:
            self._end(writer)
            raise
        self._forget(tenure.tp)
        # Not before: one that is given up while it starts would start all the same.
        self._writers[tenure.tp] = writer
        return writer

    def _forget(self, tp: TP) -> None:
        writer = self._writers.pop(tp, None)
        if writer is not None:
            self._end(writer)

    def _end(self, writer: Writer) -> None:
        task = asyncio.create_task(writer.close(), name=f"close {writer}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
