"""Replaces some methods of aiokafka 0.14 in every client of a process.

Input: aiokafka's classes. Output: the same classes, with these differences:

- An error in the answer about committed offsets is raised. aiokafka treats the error as "no offset
  is committed", so a worker would fold its partitions from the start of the log.
- A request on a closing connection raises ``KafkaConnectionError``, which every caller handles. A
  socket may close before aiokafka notices the close. If aiokafka then sends a request, asyncio
  drops the request, but uvloop raises ``RuntimeError``. This error ends the aiokafka task that sent
  the request. If that task updates the metadata, the client waits for metadata forever.
- Closing a connection takes at most ``_CLOSED_WITHIN_S``. At the end of TLS, a broker should answer
  a last message. Both event loops, asyncio's and uvloop's, wait 30 s for this answer, so a worker
  would stop too late.
- A consumer closes even while a failed fetch waits for its retry. In aiokafka, the close cancels
  that wait and raises the ``CancelledError``, and then Faust waits forever for the consumer's
  thread.
- Each new connection reads the TLS context and the password from their files. aiokafka would use
  the values from the time at which the client was created.
- Consumers unpack batches within the limits that ``runtime.kafka.fetched`` sets. The error about a
  damaged batch names the offset.
- A request for metadata never creates a topic. A broker with ``auto.create.topics.enable=true``,
  Kafka's default, would create a deleted log again, empty and with a retention of a week.
- Heartbeats and commits can carry the member's name; see ``named``.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    NoError,
    NotCoordinatorForGroupError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitResponse_v3,
    OffsetFetchResponse_v2,
    OffsetFetchResponse_v3,
)
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatResponse_v1
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String

from runtime import internals
from runtime.kafka import certificates
from runtime.kafka.credentials import Renewed
from runtime.kafka.fetched import Batches

# A broker usually answers the last message of TLS within milliseconds.
_CLOSED_WITHIN_S: Final = 1.0
# The attributes of a connection whose values may come from files.
_CREDENTIALS: Final = ("_ssl_context", "_sasl_plain_password")

internals.check()
_fetch_offsets = GroupCoordinator._do_fetch_commit_offsets  # noqa: SLF001
_send = AIOKafkaConnection.send
_close = AIOKafkaConnection.close
_connect = AIOKafkaConnection.connect
_close_fetcher = fetcher.Fetcher.close
_build_metadata = MetadataRequest.build

send_to_coordinator: Final = GroupCoordinator._send_req  # noqa: SLF001
"""aiokafka's own method that sends a request to the group's coordinator."""


def replace_send_to_coordinator(send: Callable[[Any, Any], Awaitable[Any]]) -> None:
    """Make every client of this process call ``send`` for a request to its group's coordinator."""
    GroupCoordinator._send_req = send  # noqa: SLF001


def correct() -> None:
    """Replace aiokafka's methods with this module's functions; a second call changes nothing."""
    for version in (OffsetFetchResponse_v2, OffsetFetchResponse_v3):
        version.topics = property(_topics_unless_error)
    GroupCoordinator._do_fetch_commit_offsets = _fetch_from_coordinator  # noqa: SLF001
    AIOKafkaConnection.send = _send_while_open
    AIOKafkaConnection.close = _close_in_time
    AIOKafkaConnection.connect = _connect_with_current
    MetadataRequest.build = _build_without_creation
    fetcher.Fetcher.close = _close_with_fetches
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = PartitionRecords


def _topics_unless_error(response: Any) -> Any:
    """Return an answer's partitions; raise the error of the whole answer (KIP-88), if any."""
    error = for_code(response.error_code)
    if error is not NoError:
        raise error
    return response.__dict__["topics"]


async def _fetch_from_coordinator(
    coordinator: GroupCoordinator, partitions: Sequence[TopicPartition]
) -> Any:
    """Fetch offsets; if the asked broker is no longer the coordinator, forget this coordinator.

    Then the caller's retry finds the new coordinator.
    """
    try:
        return await _fetch_offsets(coordinator, partitions)
    except NotCoordinatorForGroupError:
        coordinator.coordinator_dead()
        raise


def _send_while_open(connection: AIOKafkaConnection, *request: Any, **options: Any) -> Any:
    writer = connection._writer  # noqa: SLF001
    if writer is not None and writer.transport.is_closing():
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} is closing")
    return _send(connection, *request, **options)


def _close_in_time(connection: AIOKafkaConnection, *why: Any, **options: Any) -> Any:
    """Close; return a future that is done once the connection is closed, or at the time limit."""
    closed = _close(connection, *why, **options)
    if closed is None:
        return None
    loop = closed.get_loop()
    over = loop.create_future()

    def end(_closed: object = None) -> None:
        if not over.done():
            over.set_result(None)

    closed.add_done_callback(end)
    loop.call_later(_CLOSED_WITHIN_S, end)
    return over


async def _close_with_fetches(closing: fetcher.Fetcher) -> None:
    closing._fetch_task.cancel()  # noqa: SLF001
    await asyncio.wait([closing._fetch_task])  # noqa: SLF001
    if fetches := closing._pending_tasks.copy():  # noqa: SLF001
        for fetch in fetches:
            fetch.cancel()
        await asyncio.wait(fetches)
        closing._pending_tasks.clear()  # noqa: SLF001
    await _close_fetcher(closing)


async def _connect_with_current(connection: AIOKafkaConnection) -> Any:
    for name in _CREDENTIALS:
        given = getattr(connection, name)
        if isinstance(given, Renewed):
            setattr(connection, name, given.current())
    try:
        reader, writer = await _connect(connection)
    except ssl.SSLCertVerificationError as error:
        await certificates.note_refused(connection.host, connection.port, error)
        raise
    certificates.note(f"{connection.host}:{connection.port}", writer.transport)
    return reader, writer


def _build_without_creation(request: MetadataRequest, version: Any) -> Any:
    request._allow_auto_topic_creation = False  # noqa: SLF001
    return _build_metadata(request, version)


class PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one fetch."""

    _records: Batches
    _records_iterator: Any

    def __next__(self) -> Any:
        """Return the next record; an error names the offset of the damage."""
        try:
            return next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None
            raise
        except (CorruptRecordException, UnicodeDecodeError, UnsupportedCodecError) as error:
            if not self._records.reopen():
                raise CorruptRecordException(
                    f"{self._tp.topic}[{self._tp.partition}] is damaged at offset "
                    f"{self.next_fetch_offset}: {error}. Restore it from a replica or a backup"
                ) from error
        self._records_iterator = self._unpack_records()
        return next(self)


def named(request: Any, name: str) -> Any:
    """Add the member's name to a heartbeat or a commit; return any other request unchanged.

    aiokafka joins a group under a name (``group.instance.id``), but its heartbeats and commits lack
    the name. So if a newer process takes the name, Kafka can't inform the earlier process of this
    (KIP-345).
    """
    if isinstance(request, HeartbeatRequest):
        return _NamedHeartbeat(request, name)
    if isinstance(request, OffsetCommitRequest):
        return _NamedOffsetCommit(request, name)
    return request


class _HeartbeatResponseV3(Response):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = HeartbeatResponse_v1.SCHEMA


class _HeartbeatV3(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponseV3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class OffsetCommitResponseV7(Response):  # type: ignore[misc]
    """The answer to a commit that names its member."""

    API_KEY = 8
    API_VERSION = 7
    SCHEMA = OffsetCommitResponse_v3.SCHEMA


class _OffsetCommitV7(RequestStruct):  # type: ignore[misc]
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = OffsetCommitResponseV7
    _PARTITION = Array(
        ("partition", Int32),
        ("offset", Int64),
        ("leader_epoch", Int32),
        ("metadata", String("utf-8")),
    )
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        ("topics", Array(("topic", String("utf-8")), ("partitions", _PARTITION))),
    )


class _NamedHeartbeat(Request[_HeartbeatV3]):  # type: ignore[misc]
    API_KEY = 12

    def __init__(self, heartbeat: Any, name: str) -> None:
        self._unnamed = heartbeat
        self._name = name

    def build(self, kind: type[_HeartbeatV3]) -> _HeartbeatV3:
        unnamed = self._unnamed
        member = unnamed._generation_id, unnamed._member_id  # noqa: SLF001
        return kind(unnamed._group, *member, self._name)  # noqa: SLF001


class _NamedOffsetCommit(Request[_OffsetCommitV7]):  # type: ignore[misc]
    """A commit that names its member; it gives no leader epochs."""

    API_KEY = 8

    def __init__(self, commit: Any, name: str) -> None:
        self._unnamed = commit
        self._name = name

    def build(self, kind: type[_OffsetCommitV7]) -> _OffsetCommitV7:
        unnamed = self._unnamed
        topics = [
            (topic, [(partition, offset, -1, text) for partition, offset, text in partitions])
            for topic, partitions in unnamed._topics  # noqa: SLF001
        ]
        member = unnamed._consumer_group_generation_id, unnamed._consumer_id  # noqa: SLF001
        return kind(unnamed._consumer_group, *member, self._name, topics)  # noqa: SLF001
