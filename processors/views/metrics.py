"""The pages for monitoring: the probes, and the page that Prometheus reads.

Prometheus's page has the worker's counters, and gauges that are set on each request. To calculate
the lag, the worker asks Kafka for the group's committed offsets and the partitions' ends.
Invariants: A request to Kafka has a time limit, because the request occupies the consumer's thread.
If Kafka does not answer, no lag is shown.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError
from aiokafka.structs import TopicPartition
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import json_answer
from runtime.kafka.internals import coordinator_of
from runtime.metrics import CONTENT_TYPE

_ANSWER_WITHIN_S: Final = 2.0


def add_pages(app: LedgerApp) -> None:
    """Declare the pages."""
    gauges = Gauges(app)

    @app.page("/healthz")
    async def get_health(_view: View, _request: Request) -> Any:
        """Report that the process is alive."""
        return json_answer(b'{"status":"alive"}')

    @app.page("/readyz")
    async def get_readiness(_view: View, _request: Request) -> Any:
        """Report whether tables are recovered, the partitions are ours, and no records are lost."""
        state.require_ready(app)
        state.require_whole(app)
        return json_answer(b'{"status":"ready"}')

    @app.page("/metrics")
    async def get_metrics(_view: View, _request: Request) -> Any:
        """Return this worker's counters and gauges."""
        body = await gauges.page(ready=state.unready(app) is None)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


class Gauges:
    """The gauges of one worker."""

    def __init__(self, app: LedgerApp) -> None:
        self._app = app
        # The consumer's thread handles only two requests at the same time. This page makes only one
        # request at a time, so it never occupies the whole thread.
        self._asking = asyncio.Lock()

    async def page(self, *, ready: bool) -> bytes:
        """Set all gauges, and return the page."""
        metrics = self._app.metrics
        async with self._asking:
            sources = self._sources()
            lags = await self._lags(sources)
            self._show_lags(sources, lags, ready=ready)
            metrics.ready.set(ready)
            metrics.recovery.set(self._app.tables.recovery.remaining())
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
        consumer = self._app.consumer
        try:
            # This limit also works while the consumer's thread hangs.
            async with asyncio.timeout(2 * _ANSWER_WITHIN_S):
                lags: Mapping[TP, int] = await consumer.on_thread(_ask, consumer.client, sources)
                return lags
        except (KafkaError, OSError, TimeoutError, ConsumerNotStarted, ConsumerStoppedError):
            return {}

    def _show_lags(self, sources: Sequence[TP], lags: Mapping[TP, int], *, ready: bool) -> None:
        """Show the lags of this worker's current partitions, and of no other partitions."""
        records, seconds = self._app.metrics.lag_records, self._app.metrics.lag_seconds
        records.clear()
        seconds.clear()
        now_ms = time.time() * 1000
        for tp in sources:
            labels = (self._app.hops[tp.topic], str(tp.partition))
            if tp in lags:
                records.labels(*labels).set(lags[tp])
            if ready:
                oldest_ms = self._app.consumer.offsets.oldest_ms(tp)
                age_s = 0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000
                seconds.labels(*labels).set(max(age_s, 0.0))

    def _partitions(self) -> dict[str, int]:
        changelog = self._app.chunk_tables["seen"].changelog_name
        assignor = self._app.assignor
        assigned = {"active": assignor.assigned_actives(), "standby": assignor.assigned_standbys()}
        return {
            role: sum(tp.topic == changelog for tp in partitions)
            for role, partitions in assigned.items()
        }


async def _ask(consumer: AIOKafkaConsumer, sources: Sequence[TP]) -> dict[TP, int]:
    """Return, on the consumer's thread, each partition's number of uncommitted records."""
    partitions = [TopicPartition(tp.topic, tp.partition) for tp in sources]
    async with asyncio.timeout(_ANSWER_WITHIN_S):
        found = await coordinator_of(consumer).fetch_committed_offsets(partitions)
        committed = {tp: each.offset for tp, each in found.items() if each.offset >= 0}
        new = [tp for tp in partitions if tp not in committed]
        committed |= await consumer.beginning_offsets(new) if new else {}
        # The ends are read last. If they were read first, a later commit could exceed its end, and
        # the lag would be negative.
        ends = await consumer.end_offsets(partitions)
    return {TP(tp.topic, tp.partition): max(ends[tp] - committed[tp], 0) for tp in partitions}
