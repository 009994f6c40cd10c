"""Appends to the log of record in Kafka, and reconnects when necessary.

Input: records, each with a deadline. Output: a record's place once all in-sync replicas have the
record, or ``LogUnavailableError``. Invariants: no append waits beyond its deadline; a failed record
is not retried here, because its sender delivers it again; no failure requires a restart.

``connecting`` ──(Kafka answers, topics are right)──▶ ``connected`` ──(an append fails, or a topic
changes)──▶ ``connecting``
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

import structlog
from aiokafka.errors import KafkaError

from ingest.appends import Appends, LogUnavailableError
from ingest.producer import Condition, LogProducer, look_at_log, open_producer
from ingest.records import NewRecord
from ingest.settings import IngestSettings
from ledger.records import Place
from runtime.fault import Fault
from runtime.kafka.administration import unreachable
from runtime.kafka.client_log import ClientLog
from runtime.kafka.topic_looks import TopicsError

_NOT_YET: Final = "Kafka is not connected yet"
# The answers to deliveries are public, so only a line of the log output names the address.
_ADVERTISED: Final = "a broker can't be reached at the address that it advertises"
# Ingress reconnects within this time after an outage of Kafka.
_RECONNECT_S: Final = 0.5
# Ingress notices an operator's change to a topic within this time plus the time of Kafka's answer.
# Deliveries acknowledged until then may be in a topic that does not keep them.
_LOOK_EVERY_S: Final = 1.0
# The start of the program waits this long for a connection, and then goes on without a connection.
_FIRST_ATTEMPT_S: Final = 2.0
# At shutdown, the records of deliveries already answered with 503 get this long to reach Kafka.
_FLUSH_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Log(Protocol):
    """The log as the endpoints see it."""

    def append(self, record: NewRecord, until: float) -> Awaitable[Place]:
        """Return the kept record's place, or raise ``LogUnavailableError``, before ``until``."""

    async def trouble(self) -> str | None:
        """Return why nothing can be appended now; ``None`` if appending is possible."""

    @property
    def topic_faults(self) -> int:
        """The number of faults that were found when the topics were last checked."""

    async def start(self) -> None:
        """Begin to connect."""

    async def close(self) -> None:
        """Close every connection, in bounded time."""


class WebhookLog:
    """A ``Log`` on Kafka, which connects and reconnects in the background."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._names = settings.names
        self._producer: LogProducer | None = None
        self._appends: Appends | None = None
        # The reason why there is no producer, for the answers to appends and probes.
        self._reason = _NOT_YET
        # The faults that were found when the topics were last checked.
        self._faults: Sequence[Fault] = ()
        # The faults that were logged last. Each fault is a wrong setting that makes brokers
        # refuse some records.
        self._logged: list[str] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._client_log = ClientLog()

    async def start(self) -> None:
        """Begin to connect, and wait a moment for the first attempt."""
        self._client_log.attach()
        self._keeper = asyncio.create_task(self._keep_connected())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ATTEMPT_S):
                await self._tried.wait()

    async def close(self) -> None:
        """Wait a moment for the batches under way, and close the connections."""
        if self._producer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self._producer.flush()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._client_log.detach()

    def append(self, record: NewRecord, until: float) -> asyncio.Future[Place]:
        """Return the place of an acknowledged record; ``until`` is a time on the loop's clock.

        A record whose deadline has passed may still reach the log. Its sender delivers the event
        again, so the log then has the event twice, and the ledger counts the event once.
        """
        if self._appends is None:
            refused: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
            refused.set_exception(LogUnavailableError(self._reason))
            return refused
        return self._appends.append(record, until)

    async def trouble(self) -> str | None:
        """Ask Kafka itself, because an earlier answer may no longer be true."""
        if self._producer is None:
            return self._reason
        return await self._trouble_with(self._producer)

    @property
    def topic_faults(self) -> int:
        """The number of faults; if a fault forbids every append, only this fault is counted."""
        return len(self._faults)

    async def _keep_connected(self) -> None:
        while True:
            try:
                async with open_producer(self._settings) as producer:
                    await self._serve(producer)
            except TopicsError as error:
                self._disconnect(_ADVERTISED, str(error))
            except (KafkaError, OSError, TimeoutError) as error:
                self._disconnect("Kafka does not answer", str(unreachable(self._settings, error)))
            except Exception as error:  # noqa: BLE001
                # A bug, here or in aiokafka, must not end the attempts.
                self._disconnect("ingress can't connect to Kafka", repr(error))
            self._tried.set()
            await asyncio.sleep(_RECONNECT_S)

    async def _serve(self, producer: LogProducer) -> None:
        """Append with this producer until it fails."""
        seen = await self._look(producer)
        if isinstance(seen, Fault):
            self._disconnect(str(seen))
            return
        self._lost.clear()
        topics = self._names.shared
        for topic in topics:
            await producer.partitions_for(topic)
        # The ledger's number of partitions stays the same even if an operator adds partitions to a
        # topic, so keys keep their partitions.
        appends = Appends(producer, seen.partitions, seen.limits_bytes, self._lose, self._ends)
        self._appends = appends
        self._producer = producer
        self._heed(seen)
        self._client_log.last_line = ""
        _log.info("log_connected", topics=topics)
        self._tried.set()
        try:
            await self._until_lost(producer)
        finally:
            self._producer = self._appends = None
            appends.fail(self._reason)

    async def _until_lost(self, producer: LogProducer) -> None:
        """Return once an append has failed, or a topic no longer accepts appends."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._lost.wait()
                    return
            await self._trouble_with(producer)

    async def _trouble_with(self, producer: LogProducer) -> str | None:
        """Check the log; give up the producer if only an operator can remove the fault."""
        seen = await self._look(producer)
        if isinstance(seen, Condition):
            if producer is self._producer:
                self._heed(seen)
            return None
        if seen.remedy and producer is self._producer:
            self._lose(str(seen))
        return str(seen)

    async def _look(self, producer: LogProducer) -> Condition | Fault:
        """Check the topics, and note their faults, except a fault that may end by itself."""
        seen = await look_at_log(producer.client, self._names)
        if isinstance(seen, Condition):
            self._faults = seen.faults
        elif seen.remedy:
            self._faults = [seen]
        return seen

    def _heed(self, seen: Condition) -> None:
        """Apply the topics' limits, and log each new fault in their settings."""
        if self._appends is not None:
            self._appends.bound(seen.limits_bytes)
        for fault in map(str, seen.faults):
            if fault not in self._logged:
                _log.warning("a topic is not as expected", fault=fault)
        self._logged = list(map(str, seen.faults))

    def _lose(self, reason: str) -> None:
        """Give up the producer, and fail all records that wait for it."""
        self._disconnect(reason)
        self._lost.set()

    def _disconnect(self, reason: str, detail: str = "") -> None:
        """Record why nothing can be appended; log the reason if it is new."""
        if self._producer is not None or self._reason != reason:
            client = self._client_log.last_line
            _log.warning("log_unavailable", reason=reason, detail=detail, aiokafka=client)
        self._producer = self._appends = None
        self._reason = reason
