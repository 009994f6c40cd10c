"""Asks the brokers directly how far the workers have folded the log of record.

The watch reads each partition's end and committed offset, and retries while a broker is down.
"""

import asyncio
import contextlib
import time
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from runtime.kafka.topics import TopicSettings

_POLL_S: Final = 0.1
_ANSWER_WITHIN_S: Final = 5.0

Marks = dict[TopicPartition, int]


class Watch:
    """A consumer that reads the offsets of the workers' group, but never joins the group."""

    def __init__(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._partitions = [
            TopicPartition(settings.names.webhooks, number) for number in range(settings.partitions)
        ]
        self._consumer: AIOKafkaConsumer | None = None

    async def ends(self) -> Marks:
        """Return the end of each partition of the log of record; wait while a broker is down."""
        while True:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    consumer = await self._connected()
                    return dict(await consumer.end_offsets(self._partitions))
            await self._forget()

    async def folded_past(self, marks: Marks, within_s: float) -> float | None:
        """Wait until each commit is past ``marks``; return that time, or ``None`` on a timeout."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            committed = await self._committed()
            if committed and all(committed[each] > mark for each, mark in marks.items()):
                return time.monotonic()
            await asyncio.sleep(_POLL_S)
        return None

    async def close(self) -> None:
        """Close the connection."""
        await self._forget()

    async def _committed(self) -> Marks | None:
        with contextlib.suppress(KafkaError, TimeoutError, OSError):
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                consumer = await self._connected()
                return {each: await consumer.committed(each) or 0 for each in self._partitions}
        await self._forget()
        return None

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._settings.bootstrap_servers,
                group_id=self._settings.group_id,
                enable_auto_commit=False,
                request_timeout_ms=int(_ANSWER_WITHIN_S * 1000),
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            consumer.assign(self._partitions)
            self._consumer = consumer
        return self._consumer

    async def _forget(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    await consumer.stop()
        await asyncio.sleep(_POLL_S)
