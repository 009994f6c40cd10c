"""The batches of several producers share requests, and each batch is written once, in order."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from runtime.kafka import sender
from runtime.kafka.sender import Epoch, Sender
from tests.fakes import until

ONE, TWO = TopicPartition("orders", 0), TopicPartition("entries", 0)

Answer = Callable[[TopicPartition, list[str]], type[KafkaError]]


class Broker:
    """A client of two brokers that notes each request, and answers when the test lets it.

    ``answer`` chooses the error for each batch; ``leader`` is the broker of every partition.
    """

    def __init__(self) -> None:
        self.requests: list[dict[TopicPartition, list[str]]] = []
        self.log: list[str] = []
        self.sequences: list[int] = []
        self.answer: Answer = lambda _tp, _keys: errors.NoError
        self.open = asyncio.Event()
        self.open.set()
        self.leader = 1
        self.refreshes = 0
        self.cluster = SimpleNamespace(leader_for_partition=lambda _tp: self.leader)

    def add_topic(self, topic: str) -> None:
        pass

    async def _wait_on_metadata(self, topic: str) -> None:
        pass

    def force_metadata_update(self) -> None:
        self.refreshes += 1

    async def send(self, _broker: int, request: Any) -> Any:
        batches = {
            TopicPartition(topic, partition): MemoryRecords(bytes(data)).next_batch()
            for topic, partitions in request._topics
            for partition, data in partitions
        }
        keys = {tp: [each.key.decode() for each in batch] for tp, batch in batches.items()}
        self.requests.append(keys)
        self.sequences += [batch.base_sequence for batch in batches.values()]
        await self.open.wait()
        codes = {tp: self.answer(tp, those) for tp, those in keys.items()}
        for tp, those in keys.items():
            self.log += those if codes[tp] is errors.NoError else []
        return SimpleNamespace(
            topics=[(tp.topic, [(tp.partition, codes[tp].errno, 7, -1)]) for tp in keys]
        )


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(sender, "RETRY_AFTER_S", 0.001)
    return Broker()


def batch(*keys: str) -> BatchBuilder:
    made = BatchBuilder(10_000, 0)
    for key in keys:
        made.append(timestamp=1, key=key.encode(), value=b"value")
    return made


async def test_batches_that_are_ready_in_one_turn_share_a_request(broker: Broker) -> None:
    tested, first, second = Sender(broker), Epoch(1, 0), Epoch(2, 5)
    futures = [
        await tested.send(first, ONE, batch("a", "b")),
        await tested.send(second, TWO, batch("c")),
    ]
    answers = await asyncio.gather(*futures)
    assert broker.requests == [{ONE: ["a", "b"], TWO: ["c"]}]
    assert [(each.offset, each.timestamp_type) for each in answers] == [(7, 0), (7, 0)]


async def test_batches_of_one_partition_leave_in_their_order_with_consecutive_numbers(
    broker: Broker,
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    futures = [await tested.send(epoch, ONE, batch(key, key)) for key in ("a", "b", "c")]
    await asyncio.gather(*futures)
    assert broker.requests == [{ONE: ["a", "a"]}, {ONE: ["b", "b"]}, {ONE: ["c", "c"]}]
    assert broker.sequences == [0, 2, 4]


async def test_the_number_after_the_largest_sequence_number_is_0(broker: Broker) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    epoch.next_sequence[ONE] = 2**31 - 1
    futures = [await tested.send(epoch, ONE, batch(key)) for key in ("a", "b")]
    await asyncio.gather(*futures)
    assert broker.sequences == [2**31 - 1, 0]


async def test_a_busy_broker_gets_everything_that_waited_in_its_next_request(
    broker: Broker,
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    broker.open.clear()
    futures = [await tested.send(epoch, ONE, batch("a"))]
    await asyncio.sleep(0)
    for tp, key in ((TWO, "b"), (ONE, "c")):
        futures.append(await tested.send(epoch, tp, batch(key)))
        await asyncio.sleep(0)
    broker.open.set()
    await asyncio.gather(*futures)
    assert broker.requests == [{ONE: ["a"]}, {TWO: ["b"], ONE: ["c"]}]


async def test_later_batches_wait_for_a_batch_in_flight_even_if_the_leader_changes(
    broker: Broker,
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    broker.open.clear()
    futures = [await tested.send(epoch, ONE, batch("a"))]
    await asyncio.sleep(0)
    broker.leader = 2
    futures += [await tested.send(epoch, tp, batch("b")) for tp in (ONE, TWO)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert broker.requests == [{ONE: ["a"]}, {TWO: ["b"]}]
    broker.open.set()
    await asyncio.gather(*futures)
    assert broker.requests[2:] == [{ONE: ["b"]}]


async def test_a_batch_is_retried_with_its_number_before_later_batches_are_sent(
    broker: Broker,
) -> None:
    tested, epoch, tries = Sender(broker), Epoch(1, 0), iter([errors.NotLeaderForPartitionError])
    broker.answer = lambda tp, _keys: next(tries, errors.NoError) if tp == ONE else errors.NoError
    futures = [await tested.send(epoch, tp, batch("a")) for tp in (ONE, TWO)]
    futures.append(await tested.send(epoch, ONE, batch("b")))
    await asyncio.gather(*futures)
    assert broker.log == ["a", "a", "b"]
    assert broker.sequences == [0, 0, 0, 1]
    assert broker.refreshes == 1


async def test_if_a_partition_has_no_leader_its_batch_waits_and_the_client_requests_the_leaders(
    broker: Broker,
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    broker.leader = -1
    future = await tested.send(epoch, ONE, batch("a"))
    await until(lambda: broker.refreshes > 1)
    broker.leader = 1
    await future
    assert broker.log == ["a"]


async def test_a_connection_that_breaks_is_tried_again_but_other_errors_are_reported(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    raised = iter([KafkaConnectionError(), ZeroDivisionError("a bug")])
    send = broker.send

    async def fail(node: int, request: Any) -> Any:
        for error in raised:
            raise error
        return await send(node, request)

    monkeypatch.setattr(broker, "send", fail)
    failed = await tested.send(epoch, ONE, batch("a"))
    with pytest.raises(ZeroDivisionError):
        await failed
    await (await tested.send(epoch, ONE, batch("b")))
    assert broker.log == ["b"]


async def test_a_batch_without_an_answer_is_not_acknowledged(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    send = broker.send

    async def answer_the_first(node: int, request: Any) -> Any:
        answer = await send(node, request)
        return SimpleNamespace(topics=answer.topics[:1])

    monkeypatch.setattr(broker, "send", answer_the_first)
    futures = [await tested.send(epoch, tp, batch("a")) for tp in (ONE, TWO)]
    await futures[0]
    with pytest.raises(KafkaError, match="did not answer for every batch"):
        await futures[1]


async def test_each_batch_has_the_error_of_its_own_partition(broker: Broker) -> None:
    tested, epoch = Sender(broker), Epoch(1, 0)
    broker.answer = lambda tp, _keys: errors.InvalidProducerEpoch if tp == ONE else errors.NoError
    futures = [await tested.send(epoch, tp, batch("a")) for tp in (ONE, TWO)]
    with pytest.raises(ProducerFenced):
        await futures[0]
    assert (await futures[1]).offset == 7


async def test_only_batches_in_flight_are_written_after_their_producer_has_given_up(
    broker: Broker,
) -> None:
    tested, epoch, other = Sender(broker), Epoch(1, 0), Epoch(2, 0)
    broker.open.clear()
    in_flight = [await tested.send(epoch, tp, batch("a")) for tp in (ONE, TWO)]
    broker.answer = lambda tp, _keys: errors.NoError if tp == ONE else errors.RequestTimedOutError
    await asyncio.sleep(0)
    waiting = [await tested.send(each, ONE, batch("b")) for each in (epoch, other)]
    tested.give_up(epoch, LookupError("given up"))
    broker.open.set()
    await in_flight[0]
    for future in (in_flight[1], waiting[0]):
        with pytest.raises(LookupError):
            await future
    await waiting[1]
    with pytest.raises(LookupError):
        await tested.send(epoch, ONE, batch("c"))
    await tested.close()
    assert broker.log == ["a", "b"]


async def test_a_request_is_bounded_and_every_partition_has_its_turn(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_REQUEST_BYTES", 1)
    tested, epoch = Sender(broker), Epoch(1, 0)
    futures = [await tested.send(epoch, tp, batch("a")) for tp in (ONE, ONE, TWO)]
    await asyncio.gather(*futures)
    assert broker.requests == [{ONE: ["a"]}, {TWO: ["a"]}, {ONE: ["a"]}]


async def test_if_a_batch_fails_the_later_batches_of_its_producer_and_partition_are_not_written(
    broker: Broker,
) -> None:
    tested, epoch, other = Sender(broker), Epoch(1, 0), Epoch(2, 0)
    broker.answer = lambda _tp, keys: (
        errors.MessageSizeTooLargeError if keys == ["a"] else errors.NoError
    )
    futures = [await tested.send(epoch, ONE, batch(key)) for key in ("a", "b", "c")]
    kept = [await tested.send(other, ONE, batch("d")), await tested.send(epoch, TWO, batch("e"))]
    for future in futures:
        with pytest.raises(errors.MessageSizeTooLargeError):
            await future
    await asyncio.gather(*kept)
    assert sorted(broker.log) == ["d", "e"]


async def test_the_client_asks_again_for_a_topic_that_has_no_partitions_in_the_metadata(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has lost its right to a topic ends with this reason, not with a time-out."""
    tested, epoch = Sender(broker), Epoch(1, 0)
    await (await tested.send(epoch, ONE, batch("a")))
    monkeypatch.setattr(broker, "leader", None)

    async def refuse(topic: str) -> None:
        raise errors.TopicAuthorizationFailedError(topic)

    monkeypatch.setattr(broker, "_wait_on_metadata", refuse)
    with pytest.raises(errors.TopicAuthorizationFailedError):
        await tested.send(epoch, ONE, batch("b"))


async def test_a_sender_that_closes_does_not_wait_for_a_broker_that_does_not_answer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_CLOSED_WITHIN_S", 0.01)
    tested, epoch = Sender(broker), Epoch(1, 0)
    broker.open.clear()
    future = await tested.send(epoch, ONE, batch("a"))
    await asyncio.sleep(0)
    tested.give_up(epoch, LookupError("given up"))
    await tested.close()
    assert not future.done()
    broker.open.set()
    await future
