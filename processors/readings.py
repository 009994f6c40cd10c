"""The gauges that a worker reads at each scrape: lag, readiness, partitions, recovery, tables.

Input: the worker, and its group's commits and its partitions' ends in Kafka. Output: the gauges of
``processors.metrics``. Invariants: a question to Kafka has a time limit, because it keeps the
consumer's thread from the worker's own questions. Without an answer the lag is absent, never old.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.structs import TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from processors.topology import LedgerApp
from runtime.kafka.internals import coordinator_of

_ANSWER_WITHIN_S: Final = 2.0


class Readings:
    """The gauges of one worker."""

    def __init__(self, app: LedgerApp) -> None:
        self._app = app
        # Each question takes one of the consumer thread's two places.
        self._asking = asyncio.Lock()

    async def page(self, *, ready: bool) -> bytes:
        """Read every gauge, and return the page for Prometheus."""
        metrics = self._app.metrics
        async with self._asking:
            sources = self._sources()
            lags = await self._lags(sources)
            self._show_lags(sources, lags, ready=ready)
            metrics.ready.set(ready)
            metrics.recovery.set(self._recovery())
            for role, number in self._partitions().items():
                metrics.partitions.labels(role).set(number)
            for name, table in self._app.chunk_tables.items():
                keys, size_bytes = table.sizes()
                metrics.table_keys.labels(name).set(keys)
                metrics.table_bytes.labels(name).set(size_bytes)
            return metrics.page()

    def _sources(self) -> list[TP]:
        """Return the partitions that this worker folds."""
        try:
            return [tp for tp in self._app.consumer.assignment() if tp.topic in self._app.hops]
        except ConsumerNotStarted:
            return []

    async def _lags(self, sources: Sequence[TP]) -> Mapping[TP, int]:
        if not sources:
            return {}
        thread = cast("Any", self._app.consumer)._thread  # noqa: SLF001
        try:
            asked = thread.call_thread(_ask, thread._ensure_consumer(), sources)  # noqa: SLF001
            # This second limit is for a consumer thread that hangs.
            async with asyncio.timeout(2 * _ANSWER_WITHIN_S):
                return cast("Mapping[TP, int]", await asked)
        except (KafkaError, OSError, TimeoutError, ConsumerNotStarted, ConsumerStoppedError):
            return {}

    def _show_lags(self, sources: Sequence[TP], lags: Mapping[TP, int], *, ready: bool) -> None:
        """Show the lags of this worker's current partitions only."""
        records, seconds = self._app.metrics.lag_records, self._app.metrics.lag_seconds
        records.clear()
        seconds.clear()
        now_ms = time.time() * 1000
        offsets = cast("Any", self._app.consumer).offsets
        for tp in sources:
            labels = (self._app.hops[tp.topic], str(tp.partition))
            if tp in lags:
                records.labels(*labels).set(lags[tp])
            if ready:
                oldest_ms = offsets.oldest_ms(tp)
                age_s = 0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000
                seconds.labels(*labels).set(max(age_s, 0.0))

    def _recovery(self) -> int:
        return int(cast("Any", self._app.tables).recovery.remaining())

    def _partitions(self) -> dict[str, int]:
        changelog = self._app.chunk_tables["seen"].changelog_name
        assignor: Any = self._app.assignor
        assigned = {"active": assignor.assigned_actives(), "standby": assignor.assigned_standbys()}
        return {
            role: sum(tp.topic == changelog for tp in partitions)
            for role, partitions in assigned.items()
        }


async def _ask(consumer: AIOKafkaConsumer, sources: Sequence[TP]) -> dict[TP, int]:
    """Return each partition's number of uncommitted records; runs on the consumer's thread."""
    partitions = [TopicPartition(tp.topic, tp.partition) for tp in sources]
    async with asyncio.timeout(_ANSWER_WITHIN_S):
        found = await coordinator_of(consumer).fetch_committed_offsets(partitions)
        committed = {tp: each.offset for tp, each in found.items() if each.offset >= 0}
        new = [tp for tp in partitions if tp not in committed]
        committed |= await consumer.beginning_offsets(new) if new else {}
        # The ends are read last, so that commits made meanwhile don't make a lag negative.
        ends = await consumer.end_offsets(partitions)
    return {TP(tp.topic, tp.partition): max(ends[tp] - committed[tp], 0) for tp in partitions}
