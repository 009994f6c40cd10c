"""Sends the batches of several idempotent producers over one client, in few requests.

Input: sealed batches, each under a producer's epoch. Output: a future for each batch, done once
every in-sync replica has the batch. The batches that are ready in the same turn of the event loop
are sent together, in one request to each broker. Each broker gets one request at a time. The
batches that become ready meanwhile share the broker's next request. A request has at most one batch
for each partition.

The broker fences each producer by its epoch, and recognizes a repeated batch by its sequence
number. Invariants: a producer's batches for a partition are written once each, in their order. If a
batch can't be written in this way, its future has an exception. An unexpected exception
acknowledges nothing.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import RecordMetadata, TopicPartition

from runtime.kafka.internals import stamped, wait_on_metadata

REQUEST_WITHIN_S: Final = 20.0
# The broker must end its wait for slow replicas before the client ends its wait for the broker.
# Otherwise one slow partition would make the whole request fail.
_REPLICATED_WITHIN_S: Final = 15.0
RETRY_AFTER_S: Final = 0.1
_CLOSED_WITHIN_S: Final = 1.0
_ALL_IN_SYNC: Final = -1
# A request must be written and replicated in time, even over a slow connection. No batch is added
# to a request that has reached this size. The last batch of a request may have up to 10 MiB.
_REQUEST_BYTES: Final = 4 * 1024 * 1024
# A sequence number has 31 bits, and the number after the largest one is 0.
_SEQUENCES: Final = 2**31
_NO_LEADER: Final = (None, -1)
# The broker takes a new time only if the topic replaces the times of its records.
_KEPT_TIME: Final = -1
# If a batch that the broker wrote long ago is sent again, the answer has no offset for the batch.
_WRITTEN: Final = (errors.NoError, errors.DuplicateSequenceNumber)


class Epoch:
    """A producer's id and epoch, and its next sequence number in each partition.

    Once the producer has given up, every batch that is not written fails with ``given_up``.
    """

    __slots__ = ("given_up", "next_sequence", "number", "producer_id")

    def __init__(self, producer_id: int, number: int) -> None:
        self.producer_id = producer_id
        self.number = number
        self.next_sequence: defaultdict[TopicPartition, int] = defaultdict(int)
        self.given_up: Exception | None = None


class _Waiting:
    """A batch that waits for its turn, or for its answer; ``data`` is set at the first attempt."""

    __slots__ = ("batch", "data", "epoch", "future", "tp")

    def __init__(self, epoch: Epoch, tp: TopicPartition, batch: BatchBuilder) -> None:
        self.epoch = epoch
        self.tp = tp
        self.batch = batch
        self.data: bytes | None = None
        self.future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()

    def stamp(self) -> bytes:
        """Return the batch's bytes, with the same sequence number in every attempt."""
        if self.data is None:
            sequence = self.epoch.next_sequence[self.tp]
            count = self.batch.record_count()
            self.epoch.next_sequence[self.tp] = (sequence + count) % _SEQUENCES
            self.data = stamped(self.batch, self.epoch.producer_id, self.epoch.number, sequence)
        return self.data

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(self.epoch.given_up or error)


class Sender:
    """Sends batches over a client; every method must be called on the client's event loop."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self.client = client
        # The batches of each partition, in the order in which they are written.
        self._queues: dict[TopicPartition, deque[_Waiting]] = {}
        # The brokers that have a request of ours, the partitions with a batch in such a request,
        # and the partitions that wait before a retry.
        self._busy: set[int] = set()
        self._in_flight: set[TopicPartition] = set()
        self._resting: set[TopicPartition] = set()
        self._topics: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_woken = False

    async def send(
        self, epoch: Epoch, tp: TopicPartition, batch: BatchBuilder
    ) -> asyncio.Future[RecordMetadata]:
        """Queue a batch, and return the future of its acknowledgement.

        The future raises ``ProducerFenced`` if a later epoch has written to the partition. It also
        raises every other error of the broker that no retry can mend.
        """
        if tp.topic not in self._topics or self.client.cluster.leader_for_partition(tp) is None:
            # From here on, each refresh of the metadata includes the topic. aiokafka itself adds a
            # topic only if it had to wait for the topic's metadata. A topic that was known by
            # chance would disappear at the next refresh, together with the leader that the batch
            # waits for.
            self.client.add_topic(tp.topic)
            await wait_on_metadata(self.client, tp.topic)
            self._topics.add(tp.topic)
        if epoch.given_up is not None:
            raise epoch.given_up
        waiting = _Waiting(epoch, tp, batch)
        self._queues.setdefault(tp, deque()).append(waiting)
        self._wake()
        return waiting.future

    def give_up(self, epoch: Epoch, error: Exception) -> None:
        """Fail all batches of an epoch, except the batches in flight that need no retry."""
        epoch.given_up = error
        for tp in list(self._queues):
            self._drop(epoch, tp, error)

    async def close(self) -> None:
        """Wait a moment for the requests in flight; call this after every epoch was given up.

        A missing answer does no harm, because no batch of these requests is retried.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSED_WITHIN_S)

    def _wake(self) -> None:
        """Send the batches that are ready at the end of this turn of the event loop."""
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._send_ready)

    def _send_ready(self) -> None:
        self._is_woken = False
        for broker, batches in self._take().items():
            task = asyncio.create_task(self._request(broker, batches))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> dict[int, list[_Waiting]]:
        """Take, for each free broker, the first batch of each partition that the broker leads."""
        requests: dict[int, list[_Waiting]] = {}
        sizes: defaultdict[int, int] = defaultdict(int)
        lacks_leader: list[TopicPartition] = []
        for tp in [tp for tp in self._queues if tp not in self._in_flight | self._resting]:
            leader = self.client.cluster.leader_for_partition(tp)
            if leader in _NO_LEADER:
                lacks_leader.append(tp)
            elif leader not in self._busy and sizes[leader] < _REQUEST_BYTES:
                queue = self._queues.pop(tp)
                batch = queue.popleft()
                if queue:
                    # The partition goes to the end, so that every partition has its turn.
                    self._queues[tp] = queue
                requests.setdefault(leader, []).append(batch)
                sizes[leader] += batch.batch.size()
        if lacks_leader:
            self.client.force_metadata_update()
            self._rest(lacks_leader)
        self._busy.update(requests)
        self._in_flight.update(each.tp for batches in requests.values() for each in batches)
        return requests

    async def _request(self, broker: int, batches: list[_Waiting]) -> None:
        unanswered = {each.tp: each for each in batches}
        try:
            answer = await self.client.send(broker, _produce(batches))
            for topic, partitions in answer.topics:
                for partition, code, offset, timestamp, *_ in partitions:
                    waiting = unanswered.pop(TopicPartition(topic, partition))
                    self._end(waiting, errors.for_code(code), offset, timestamp)
            error: Exception = KafkaError("the broker did not answer for every batch")
        except Exception as raised:  # noqa: BLE001 - the error is that of each unanswered batch
            error = raised
        self._busy.discard(broker)
        self._in_flight.difference_update(each.tp for each in batches)
        self._retry_or_fail(unanswered.values(), error)
        self._wake()

    def _end(self, waiting: _Waiting, kind: Any, offset: int, timestamp: int) -> None:
        """Handle the answer about a batch."""
        tp = waiting.tp
        if kind in _WRITTEN:
            if not waiting.future.done():
                kept = int(timestamp != _KEPT_TIME)
                waiting.future.set_result(
                    RecordMetadata(tp.topic, tp.partition, tp, offset, timestamp, kept, None)
                )
        elif kind is errors.InvalidProducerEpoch:
            self._fail(waiting, ProducerFenced())
        elif kind is errors.TopicAuthorizationFailedError:
            self._fail(waiting, kind(tp.topic))
        else:
            self._retry_or_fail([waiting], kind())

    def _retry_or_fail(self, batches: Collection[_Waiting], error: Exception) -> None:
        """Queue batches again, before later batches, or fail them if no retry can help.

        A retry never writes a batch twice, so the number of attempts has no limit.
        """
        if getattr(error, "invalid_metadata", False):
            self.client.force_metadata_update()
        can_help = getattr(error, "retriable", False)
        for each in batches:
            if can_help and each.epoch.given_up is None:
                self._queues.setdefault(each.tp, deque()).appendleft(each)
            else:
                self._fail(each, error)
        self._rest([each.tp for each in batches])

    def _fail(self, waiting: _Waiting, error: Exception) -> None:
        """Fail a batch, and its producer's later batches for the partition.

        A broker that does not know the producer yet would write the later batches although the
        failed batch is missing.
        """
        waiting.fail(error)
        self._drop(waiting.epoch, waiting.tp, error)

    def _drop(self, epoch: Epoch, tp: TopicPartition, error: Exception) -> None:
        """Fail an epoch's batches that wait for their turn in a partition."""
        queue = self._queues.get(tp, ())
        kept = deque(each for each in queue if each.epoch is not epoch)
        for each in queue:
            if each.epoch is epoch:
                each.fail(error)
        if kept:
            self._queues[tp] = kept
        else:
            self._queues.pop(tp, None)

    def _rest(self, partitions: Collection[TopicPartition]) -> None:
        """Send nothing to these partitions for a while."""
        if partitions:
            self._resting.update(partitions)
            asyncio.get_running_loop().call_later(RETRY_AFTER_S, self._go_on, partitions)

    def _go_on(self, partitions: Collection[TopicPartition]) -> None:
        self._resting.difference_update(partitions)
        self._wake()


def _produce(batches: Iterable[_Waiting]) -> ProduceRequest:
    topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for each in batches:
        topics[each.tp.topic].append((each.tp.partition, each.stamp()))
    return ProduceRequest(
        transactional_id=None,
        required_acks=_ALL_IN_SYNC,
        timeout=int(_REPLICATED_WITHIN_S * 1000),
        topics=list(topics.items()),
    )
