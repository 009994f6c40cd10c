"""Writers: each partition's outputs have a single writer; the broker refuses any other writer.

A worker that has lost a partition may still send records for the partition. None of these records
reaches a topic after a record of the partition's new owner.

Each source partition has an identity, a transactional id. The worker that receives the partition
asks the broker for the identity's next epoch and writes under this epoch. Once a log has a record
of the new epoch, the broker refuses records of the old epoch (``ProducerFenced``). Only the fencing
is used: there are no transactions, and so no markers in the topics.
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
from aiokafka.producer.sender import Sender as KafkaSender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import RecordMetadata, TopicPartition
from faust.types import TP, AppT

from processors.engine.chunk import ChunkConsumer, RevokedError, Tenure
from processors.engine.internals import client_of
from processors.engine.membership import clock_s
from runtime.kafka.administration import answer
from runtime.kafka.batches import ACKNOWLEDGED_WITHIN_S, BatchRefusedError
from runtime.kafka.sender import REQUEST_WITHIN_S, RETRY_AFTER_S, Epoch, Sender
from runtime.kafka.topic_states import most_bytes, read_configs, size_fault

log = structlog.get_logger(__name__)

# The topics' limit would allow one batch per chunk; several batches let the broker start earlier.
_BATCH_BYTES: Final = 512 * 1024
_UNCOMPRESSED: Final = 0
# Kafka keeps an identity for at least six hours without a renewal: see
# ``runtime.kafka.identities``. An epoch has 15 bits, and this interval uses up 24 epochs a day.
_RENEWED_AFTER_S: Final = 3600.0


class RecordTooLargeError(ValueError):
    """A record is too large for its topic; the message names its key and the remedy."""


class Writer:
    """Writes batches under one epoch of an identity, with the methods of aiokafka's producer.

    ``batch_bytes`` is the size limit for new batches.
    """

    def __init__(self, sender: Sender, epoch: Epoch, batch_bytes: int = _BATCH_BYTES) -> None:
        self.born_s = clock_s()
        self.batch_bytes = batch_bytes
        self.epoch = epoch
        self._sender = sender

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch; its first record may exceed the size limit."""
        return BatchBuilder(self.batch_bytes, _UNCOMPRESSED)

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> asyncio.Future[RecordMetadata]:
        """Begin to write a batch; the future is done once every in-sync replica has the batch."""
        return await self._sender.send(self.epoch, TopicPartition(topic, partition), batch)

    def close(self) -> None:
        """Set ``RevokedError`` on the future of every batch that is not in flight."""
        error = RevokedError("the partition was given back while a batch waited for Kafka")
        self._sender.give_up(self.epoch, error)


async def next_epoch(client: AIOKafkaClient, identity: str) -> Epoch:
    """Get an identity's next epoch from the broker, so that all its earlier epochs become obsolete.

    If the broker dies meanwhile, other brokers are asked; the caller limits the time.
    """
    manager = TransactionManager(identity, int(REQUEST_WITHIN_S * 1000))
    # aiokafka's own sender only asks for the epoch here, and never sends a batch.
    asking = KafkaSender(
        client,
        acks=-1,
        txn_manager=manager,
        message_accumulator=MessageAccumulator(client.cluster, _BATCH_BYTES, 0, 0),
        retry_backoff_ms=int(RETRY_AFTER_S * 1000),
        request_timeout_ms=int(REQUEST_WITHIN_S * 1000),
    )
    while True:
        try:
            await asking.start()
            break
        except KafkaError as error:
            # aiokafka retries by itself, unless the connection ends while aiokafka looks for the
            # broker to ask. Then aiokafka wraps the connection's error in a different error.
            if not isinstance(error.__cause__, KafkaConnectionError):
                raise
            await asyncio.sleep(RETRY_AFTER_S)
    try:
        await asking.close()
    except asyncio.CancelledError:
        # If aiokafka's task has not run yet, its end raises this error, but we were not cancelled.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    return Epoch(manager.producer_id, manager.producer_epoch)


async def _write_nothing(_writer: Writer) -> None:
    """Write nothing, so that ``Writers.write`` only creates a writer of the latest epoch."""


class Writers:
    """The writers of this worker's partitions; each writer is created at its first write."""

    def __init__(self, app: AppT, group: str) -> None:
        self._app = app
        self._group = group
        self._batch_bytes = _BATCH_BYTES
        self._sender: Sender | None = None
        self._writers: dict[TP, Writer] = {}
        # A task holds a partition's lock while it uses or renews the partition's writer.
        self._locks: defaultdict[TP, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def write(self, tenure: Tenure, work: Callable[[Writer], Awaitable[object]]) -> None:
        """Do ``work`` with a partition's writer; raise ``RevokedError`` if we lost the partition.

        ``work`` is repeated if another worker took the epoch although the partition is still ours.
        A worker that was suspended before its first write may take the epoch when it resumes. That
        worker does not write, and this worker takes the epoch back.

        ``work`` is also repeated, by a new writer with smaller batches, if a topic refuses a batch
        for its size. The refused batch leaves a gap in the old writer's sequence numbers, so the
        writer's later batches would be refused too.
        """
        async with self._locks[tenure.tp]:
            while True:
                writer = await self._writer(tenure)
                try:
                    await work(writer)
                except ProducerFenced:
                    log.warning("fenced", partition=repr(tenure))
                    self._replace(tenure.tp, writer)
                except BatchRefusedError as refused:
                    self._replace(tenure.tp, writer)
                    await self._keep_below(refused)
                else:
                    return

    def bound(self, limit_bytes: int) -> None:
        """Limit the size of all new batches."""
        self._batch_bytes = min(limit_bytes, _BATCH_BYTES)
        for writer in self._writers.values():
            writer.batch_bytes = self._batch_bytes

    async def _keep_below(self, refused: BatchRefusedError) -> None:
        """Make smaller batches; raise ``RecordTooLargeError`` if the batch was a single record.

        The topic's limit must have been lowered after the topics were last checked.
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
        """Replace each writer whose renewal is due; if this fails, the renewal stays due."""
        for tp in list(self._writers):
            # A rebalance may have taken the partition meanwhile.
            if tp in self._writers:
                with contextlib.suppress(RevokedError, KafkaError, TimeoutError):
                    await self.write(Tenure(consumer, tp), _write_nothing)

    def forget(self) -> None:
        """Give up every writer: the partitions may belong to other workers from now on."""
        for tp in list(self._writers):
            self._forget(tp)
        # Work of the former assignment may hold a lock, and must not block the next assignment.
        self._locks.clear()

    async def close(self) -> None:
        """Give up every writer, and wait a moment for the requests in flight."""
        self.forget()
        if self._sender is not None:
            await self._sender.close()

    async def _writer(self, tenure: Tenure) -> Writer:
        tenure.ensure_ours()
        held = self._writers.get(tenure.tp)
        if held is not None and clock_s() - held.born_s < _RENEWED_AFTER_S:
            return held
        client = client_of(self._app)
        if self._sender is None:
            self._sender = Sender(client)
        identity = f"{self._group}-{tenure.tp.topic}-{tenure.tp.partition}"
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            epoch = await next_epoch(client, identity)
            # The order matters: the group confirms the partition after we have the epoch. So the
            # partition's next owner asks for its epoch later, and gets a higher epoch.
            await tenure.confirm_ours()
        self._forget(tenure.tp)
        # The writer is added only once its epoch is confirmed: ``forget`` stops no such request.
        writer = self._writers[tenure.tp] = Writer(self._sender, epoch, self._batch_bytes)
        return writer

    def _replace(self, tp: TP, writer: Writer) -> None:
        """Give up a writer, unless the next tenure of the partition has its own writer already."""
        if self._writers.get(tp) is writer:
            self._forget(tp)

    def _forget(self, tp: TP) -> None:
        writer = self._writers.pop(tp, None)
        if writer is not None:
            writer.close()
