"""The append side of the log of record: Kafka, seen from a delivery.

In: records, each with the time its answer is due. Out: nothing, which means that every replica in
sync has the record; or ``LogUnavailableError``. Never: a wait beyond that time, a record kept for
later (its sender delivers it again), or a state that only a restart of the program could end.

``connecting`` ──(reachable, topics are right)──▶ ``connected`` ──(an append fails, or a topic is
changed)──▶ ``connecting``
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, Protocol

import structlog
from aiokafka.errors import KafkaError

from ingest.appends import Appends, LogUnavailableError
from ingest.producer import Condition, LogProducer, Trouble, look_at_log, open_producer
from ingest.records import NewRecord
from ingest.settings import IngestSettings
from ledger.records import Place
from runtime.kafka.client_log import ClientLog
from runtime.kafka.topics import unreachable

_NOT_YET: Final = "Kafka is not connected yet"
# How soon to try again: an outage ends for our senders within this time of its end.
_RECONNECT_S: Final = 0.5
# What an operator does to the topics is noticed within this time, plus Kafka's answer. What is
# acknowledged meanwhile may be in a topic that does not keep it.
_LOOK_EVERY_S: Final = 1.0
# Beside a running Kafka the first delivery is taken; without one the program starts as well.
_FIRST_ATTEMPT_S: Final = 2.0
# On the way out: how long records of deliveries that were already answered 503 may still take.
_FLUSH_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Log(Protocol):
    """What the endpoints need of a log."""

    def append(self, record: NewRecord, until: float) -> Awaitable[Place]:
        """Return its place once the record is kept; ``LogUnavailableError`` else, by ``until``."""

    async def trouble(self) -> str | None:
        """Find out why nothing can be appended at this moment; ``None`` if something can."""

    async def start(self) -> None:
        """Begin to connect."""

    async def close(self) -> None:
        """Let go of every connection, in bounded time."""


class WebhookLog:
    """A ``Log`` on Kafka, which connects in the background and connects again when it must."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._names = settings.names
        self._producer: LogProducer | None = None
        self._appends: Appends | None = None
        # Why there is no producer, for whoever asks while there is none.
        self._reason = _NOT_YET
        # What was last said of settings by which some records are refused.
        self._faults: list[str] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._client_log = ClientLog()

    async def start(self) -> None:
        """Begin to connect, and give the first attempt a moment."""
        self._client_log.attach()
        self._keeper = asyncio.create_task(self._keep_connected())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ATTEMPT_S):
                await self._tried.wait()

    async def close(self) -> None:
        """Send what is under way, for a moment, and close the connections."""
        if self._producer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self._producer.flush()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._client_log.detach()

    def append(self, record: NewRecord, until: float) -> asyncio.Future[Place]:
        """Return its place once Kafka acknowledged; ``until`` is a time of the event loop's clock.

        A record that was given up may still be delivered later. It is then there twice, since its
        sender delivers it again, and counts once.
        """
        if self._appends is None:
            refused: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
            refused.set_exception(LogUnavailableError(self._reason))
            return refused
        return self._appends.append(record, until)

    async def trouble(self) -> str | None:
        """Ask Kafka itself: what was true a while ago is no answer."""
        if self._producer is None:
            return self._reason
        return await self._trouble_with(self._producer)

    async def _keep_connected(self) -> None:
        while True:
            try:
                async with open_producer(self._settings) as producer:
                    await self._serve(producer)
            except (KafkaError, OSError, TimeoutError) as error:
                self._disconnect("Kafka does not answer", unreachable(self._settings, error))
            except Exception as error:  # noqa: BLE001
                # A bug, here or in aiokafka; it must not end the attempts as well.
                self._disconnect("ingress can't connect to Kafka", repr(error))
            self._tried.set()
            await asyncio.sleep(_RECONNECT_S)

    async def _serve(self, producer: LogProducer) -> None:
        """Append with this producer for as long as it can."""
        seen = await look_at_log(producer.client, self._names)
        if isinstance(seen, Trouble):
            self._disconnect(seen.reason)
            return
        self._lost.clear()
        topics = self._names.shared
        for topic in topics:
            await producer.partitions_for(topic)
        # By the recorded number, whatever the topics' numbers become.
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
        """Return after an append has failed, or a topic has become unfit to append to."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._lost.wait()
                    return
            await self._trouble_with(producer)

    async def _trouble_with(self, producer: LogProducer) -> str | None:
        """Look at the log; give the producer up over trouble that only an operator ends."""
        seen = await look_at_log(producer.client, self._names)
        if isinstance(seen, Condition):
            if producer is self._producer:
                self._heed(seen)
            return None
        if seen.remedy and producer is self._producer:
            self._lose(seen.reason)
        return seen.reason

    def _heed(self, seen: Condition) -> None:
        """Keep to the topics' limits, and say once which of them are too low."""
        if self._appends is not None:
            self._appends.bound(seen.limits_bytes)
        faults = list(map(str, seen.faults))
        for fault in faults:
            if fault not in self._faults:
                _log.warning("a topic is not as it must be", fault=fault)
        self._faults = faults

    def _lose(self, reason: str) -> None:
        """Give the producer up, and so all that wait for it."""
        self._disconnect(reason)
        self._lost.set()

    def _disconnect(self, reason: str, detail: str = "") -> None:
        """Note why nothing can be appended; logged once, however often it is found to be so."""
        if self._producer is not None or self._reason != reason:
            client = self._client_log.last_line
            _log.warning("log_unavailable", reason=reason, detail=detail, aiokafka=client)
        self._producer = self._appends = None
        self._reason = reason
