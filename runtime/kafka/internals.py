"""Wraps aiokafka's private names, each in a public function that says why the name is needed.

Only this module, and ``corrections``, which replaces some of aiokafka's methods, use these names.
``runtime.internals`` lists the names, and checks that aiokafka still has them.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import TopicPartition

from runtime import internals
from runtime.kafka.fetched import Batches

internals.check()

Fetched = Mapping[TopicPartition, list[Any]]
Append = Callable[[int, int | None, bytes | None, bytes | None, Sequence[Any]], object | None]


def appender(batch: BatchBuilder) -> Append:
    """Return the function that appends records to a batch; call ``seal`` after the last record.

    The function takes a record's number in the batch, its timestamp, key, value and headers. It
    returns ``None`` if the batch has no room. One call takes 0.6 µs. ``BatchBuilder.append`` runs
    two more Python functions, and takes 2.0 µs; the difference matters, because each event becomes
    seven records.
    """
    append: Append = batch._builder.append  # noqa: SLF001
    return append


def seal(batch: BatchBuilder, records: int) -> None:
    """Tell a batch how many records ``appender`` added to it."""
    batch._relative_offset = records  # noqa: SLF001


def content(batch: BatchBuilder) -> bytes:
    """Return the bytes of a batch that was sent, or will never be sent."""
    return bytes(batch._build())  # noqa: SLF001


def stamped(batch: BatchBuilder, producer_id: int, epoch: int, sequence: int) -> bytes:
    """Write the producer's numbers into a sealed batch; return the bytes. Call this only once."""
    batch._set_producer_state(producer_id, epoch, sequence)  # noqa: SLF001
    data: bytes = batch._build()  # noqa: SLF001
    return data


async def put_away(producer: AIOKafkaProducer, within_s: float) -> None:
    """Stop a producer in any state, and drop every record that it still holds.

    The order matters. First the sender's requests end, with an answer or at their own time-out, and
    their batches return to the accumulator. Then the accumulator drops its batches. The futures of
    these batches never complete: ``fail_all`` would complete them, but it raises errors in the
    callbacks of every batch that was already sent once. After that, ``stop`` can close the
    connections.
    """
    try:
        # The caller no longer needs the producer, so no error of the sender matters.
        with contextlib.suppress(Exception):
            # At the time limit, the sender is cancelled, and cancels its requests.
            async with asyncio.timeout(within_s):
                await producer._sender.close()  # noqa: SLF001
    finally:
        producer._message_accumulator._batches.clear()  # noqa: SLF001
        producer._message_accumulator._pending_batches.clear()  # noqa: SLF001
        await producer.stop()


def forget_identity(producer: AIOKafkaProducer) -> None:
    """Make an idempotent producer ask for a new producer id before its next batch.

    Batches that were already sent keep their producer id and their sequence numbers.
    """
    manager: TransactionManager = producer._txn_manager  # noqa: SLF001
    TransactionManager.__init__(manager, None, manager.transaction_timeout_ms)


async def wait_on_metadata(client: AIOKafkaClient, topic: str) -> None:
    """Wait until a client knows a topic's partitions; the caller must limit the time.

    aiokafka itself gives up after the client's request time-out. A broker that has just started on
    a busy machine may need longer than that to learn its topics.
    """
    while True:
        try:
            await client._wait_on_metadata(topic)  # noqa: SLF001
        except UnknownTopicOrPartitionError:
            continue
        return


def client_of(admin: AIOKafkaAdminClient) -> AIOKafkaClient:
    """Return an admin client's inner client, which knows the brokers and their addresses."""
    return admin._client  # noqa: SLF001


async def ask_node(admin: AIOKafkaAdminClient, node_id: int, request: Any) -> Any:
    """Send one broker a request for which the admin client has no method."""
    return await admin._send_request_to_node(node_id, request)  # noqa: SLF001


def versions_of(request: Any) -> Iterator[int]:
    """Yield the versions in which aiokafka can send a kind of request."""
    return (each.API_VERSION for each in request._CLASSES)  # noqa: SLF001


def wait_for_fetches(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """Set how long a broker may delay an empty answer; call this before the consumer starts.

    Faust creates the consumer, but has no setting for this delay.
    """
    consumer._fetch_max_wait_ms = wait_ms  # noqa: SLF001


async def fetch_as(
    consumer: AIOKafkaConsumer,
    fetch_now: Callable[[], Awaitable[Fetched]],
    wait_s: float,
    maker: Callable[[TopicPartition], Callable[[Batches, TopicPartition, Any], Any]],
) -> Fetched:
    """Wait up to ``wait_s`` for the first record, and return the result of ``fetch_now``.

    ``maker`` returns the function that builds a partition's records. The returned function replaces
    aiokafka's own function, which takes ten times as long. Each batch gets this function before
    ``fetch_now`` is called, and aiokafka builds the records inside ``fetch_now``. So ``fetch_now``
    must not wait for new batches, because these would not have the function.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    fetcher = consumer._fetcher  # noqa: SLF001
    while True:
        for tp, result in fetcher._records.items():  # noqa: SLF001
            if isinstance(result, FetchResult) and result.has_more():
                records = result._partition_records  # noqa: SLF001
                records._consumer_record = partial(maker(tp), records._records)  # noqa: SLF001
        fetched = await fetch_now()
        remaining_s = until - loop.time()
        if fetched or remaining_s <= 0:
            return fetched
        waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
        await asyncio.wait([waiter], timeout=remaining_s)
        if not waiter.done():
            waiter.cancel()
            return {}
        # This raises the error of the group's coordinator, such as a missing permission.
        waiter.result()


def fetching(consumer: AIOKafkaConsumer) -> asyncio.Future[None]:
    """Return a future that is done, and has the error, once a consumer has stopped fetching."""
    ended: asyncio.Future[None] = consumer._fetcher.error_future  # noqa: SLF001
    return ended


def is_fetched(consumer: AIOKafkaConsumer, tp: TopicPartition) -> bool:
    """Return whether a consumer is assigned a partition, has a position in it, and may read it."""
    assignment = consumer._fetcher._subscriptions.subscription.assignment  # noqa: SLF001
    state = assignment and assignment.state_value(tp)
    return bool(state and state.has_valid_position and not state.paused)


def coordinator_of(consumer: AIOKafkaConsumer) -> Any:
    """Return the part of a consumer that talks to its group; ``None`` before the consumer starts.

    Only the consumer's own thread may use that part.
    """
    return consumer._coordinator  # noqa: SLF001


def ask_coordinator(coordinator: GroupCoordinator, request: Any) -> Awaitable[Any]:
    """Send a request to the group's coordinator; the answer may have an error code."""
    answer: Awaitable[Any] = coordinator._send_req(request)  # noqa: SLF001
    return answer


def member_name(coordinator: GroupCoordinator) -> str | None:
    """Return the name under which a consumer joins its group; ``None`` for a dynamic member."""
    name: str | None = coordinator._group_instance_id  # noqa: SLF001
    return name


def assignor_of(coordinator: GroupCoordinator) -> Any:
    """Return a consumer's assignor; Faust gives each consumer exactly one."""
    return coordinator._assignors[0]  # noqa: SLF001


def offer_protocols(join: Any, names: Sequence[str]) -> str:
    """Replace the only protocol name in a request to join a group; return the replaced name.

    The request then offers all of ``names``.
    """
    ((own, metadata),) = join._group_protocols  # noqa: SLF001
    join._group_protocols = [(name, metadata) for name in names]  # noqa: SLF001
    return str(own)
