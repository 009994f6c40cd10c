"""What a worker tells Prometheus: what became of records, how chunks went, how it stands.

In: what follows from chunks, once it is written. Out: the metrics, declared here and nowhere else.
Never: a cost for each record: a chunk is counted as a whole; and never a label whose values come
from outside without a bound: of the types that are not folded the first few have a name here.

Counts are this process' own, from its start. A chunk that comes again after a crash is counted by
the worker that has written it to its end, and by no other.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_args

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector

from ledger.payments import Anomaly
from ledger.rejections import Reason
from ledger.topics import TABLES
from processors.engine.chunk import Chunk
from processors.engine.lanes import Work
from runtime.kafka.new_connections import EXPIRY_METRIC
from runtime.metrics import Metrics

HOPS: Final = ("dedupe", "payments", "orders")
_OUTCOMES: Final = ("folded", "duplicate", "unfolded", "rejected", "replayed")
_OTHER: Final = "other"
# Whoever has the secret may name as many types as he likes: these are told apart.
_MOST_TYPES: Final = 20

# A single delivery, as most chunks hold by day, up to LEDGER_CHUNK_RECORDS.
_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 10_000)
# A round trip to a broker is a millisecond, and a chunk is given up after a minute.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorkerMetrics(Metrics):
    """One worker's metrics. ``processors.views.metrics`` sets those that are not counted."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._types: set[str] = set()
        self.records = self.counter(
            "records", "records of the log of record, by what `dedupe` made of them", "outcome"
        )
        self.rejected = self.counter(
            "rejected", "records that went to `plexy.rejected`, by reason", "reason"
        )
        self.unfolded = self.counter(
            "unfolded",
            f"events of types that are only kept; the first {_MOST_TYPES} types have their names, "
            f"all others are `{_OTHER}`",
            "type",
        )
        self.folded = self.counter("folded", "events that count, by type", "type")
        self.forgotten = self.counter("forgotten", "event ids that were deleted for their age")
        self.reused = self.counter(
            "event_ids_reused", "events under an id that was forgotten, which say other things"
        )
        self.anomalies = self.counter(
            "order_anomalies",
            "orders whose document came to have an anomaly; it may have gone again since",
            "anomaly",
        )
        self.chunk_records = self.histogram(
            "chunk_records", "records in a chunk that was folded", "hop", buckets=_RECORDS
        )
        self.chunk_seconds = self.histogram(
            "chunk_seconds",
            "time to fold a chunk, and to write what follows from it",
            "hop",
            buckets=_SECONDS,
        )
        self.rebalances = self.counter("rebalances", "times that the workers shared out anew")
        self.ready = self.gauge("ready", "1 if the tables can be read here, else 0")
        self.partitions = self.gauge(
            "partitions", "partitions of each table that are here, by what for", "role"
        )
        self.lag_records = self.gauge(
            "lag_records",
            "records that are not folded and committed, of the partitions that this worker has; "
            "absent while Kafka does not answer",
            "hop",
            "partition",
        )
        self.lag_seconds = self.gauge(
            "lag_seconds",
            "age, by its own time, of the oldest record that was fetched and is not folded; 0 if "
            "there is none, absent while the tables are recovered",
            "hop",
            "partition",
        )
        self.recovery = self.gauge(
            "recovery_records", "changelog records to read until the worker is ready"
        )
        self.table_keys = self.gauge(
            "table_keys", "keys in the partitions that are here, as RocksDB estimates", "table"
        )
        self.table_bytes = self.gauge(
            "table_bytes", "bytes of their files and write buffers", "table"
        )
        self.topic_faults = self.gauge(
            "topic_faults", "settings and replicas of topics that are not as they must be"
        )
        self.deleted_records = self.gauge(
            "deleted_records",
            "records that Kafka has deleted of a topic that is kept for ever",
            "topic",
        )
        self.certificates = self.gauge(*EXPIRY_METRIC, "side")
        self._begin_at_zero()
        ProcessCollector(registry=self.registry)

    def judged(self, counts: Mapping[str, int], folded: Mapping[str, int] | None = None) -> None:
        """Count what `dedupe` made of a chunk, by outcome as ``ledger.deduplication`` names it.

        ``folded`` are the events that count, by type: there are few types that do.
        """
        for name, number in (folded or {}).items():
            self.folded.labels(name).inc(number)
        for name, number in counts.items():
            outcome, _, detail = name.partition(".")
            if outcome == "forgotten":
                self.forgotten.inc(number)
                continue
            self.records.labels(outcome).inc(number)
            if outcome == "unfolded":
                self.unfolded.labels(self._type(detail)).inc(number)

    def set_aside(self, reasons: Mapping[str, int]) -> None:
        """Count what an agent rejected, by reason."""
        for reason, number in reasons.items():
            self.rejected.labels(reason).inc(number)

    def appeared(self, anomalies: Mapping[str, int]) -> None:
        """Count orders by the anomalies that they did not have before a chunk."""
        for name, number in anomalies.items():
            self.anomalies.labels(name).inc(number)

    def timed(self, hop: str, work: Work) -> Work:
        """Return work that is counted and timed, a chunk at a time, if it comes to its end."""
        records, seconds = self.chunk_records.labels(hop), self.chunk_seconds.labels(hop)

        async def timed_work(chunk: Chunk) -> None:
            started = time.perf_counter()
            await work(chunk)
            seconds.observe(time.perf_counter() - started)
            records.observe(len(chunk.records))

        return timed_work

    def _type(self, name: str) -> str:
        if name not in self._types:
            if len(self._types) >= _MOST_TYPES:
                return _OTHER
            self._types.add(name)
        return name

    def _begin_at_zero(self) -> None:
        """Show what can be counted before it is: `increase` passes over the first of a series."""
        known: Sequence[tuple[Counter | Gauge | Histogram, Iterable[str]]] = (
            (self.records, _OUTCOMES),
            (self.rejected, Reason),
            (self.anomalies, get_args(Anomaly)),
            (self.chunk_records, HOPS),
            (self.chunk_seconds, HOPS),
            (self.table_keys, TABLES),
            (self.table_bytes, TABLES),
            (self.partitions, ("active", "standby")),
        )
        for metric, values in known:
            for value in values:
                metric.labels(value)


def values(counter: Counter) -> dict[str, int]:
    """Return what a counter with one label has counted, by the label's value."""
    return {
        next(iter(sample.labels.values())): int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
