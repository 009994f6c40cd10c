"""The metrics of a worker for Prometheus: outcomes of records, chunks, and the worker's state.

Input: the counts of each chunk, once the chunk is written. Output: the metrics; all of them are
declared here. Invariants: a chunk is counted as a whole, at no cost per record. The number of
values of every label is limited, so only the first few unfolded types have label values of their
own.

The counters of a process start at 0. If a chunk is folded again after a crash, only the worker that
finishes the chunk's writes counts the chunk.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_args

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector

from ledger.payment_documents import Anomaly
from ledger.rejections import Reason
from ledger.topics import TABLES
from processors.engine.chunk import Chunk
from processors.engine.lanes import Work
from runtime.kafka.new_connections import EXPIRY_METRIC
from runtime.metrics import Metrics

HOPS: Final = ("dedupe", "payments", "orders")
_OUTCOMES: Final = ("folded", "duplicate", "unfolded", "rejected", "replayed")
_OTHER: Final = "other"
# A sender that knows the secret may send any number of types. Only this many types get label values
# of their own.
_MOST_TYPES: Final = 20

# During the day, most chunks have a single delivery. The largest chunks have LEDGER_CHUNK_RECORDS.
_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 10_000)
# A round trip to a broker takes a millisecond. If Kafka does not acknowledge a chunk's records
# within a minute, the worker ends.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorkerMetrics(Metrics):
    """One worker's metrics; ``processors.views.metrics`` sets most of the gauges."""

    def __init__(self) -> None:
        super().__init__("worker")
        self._types: set[str] = set()
        self.records = self.counter(
            "records", "records of the log of record, by their outcome in `dedupe`", "outcome"
        )
        self.rejected = self.counter(
            "rejected", "records that went to `plexy.rejected`, by reason", "reason"
        )
        self.unfolded = self.counter(
            "unfolded",
            "events whose type is kept but not folded; the label is the type's name for the first "
            f"{_MOST_TYPES} types, and `{_OTHER}` for all other types",
            "type",
        )
        self.folded = self.counter("folded", "folded events, by type", "type")
        self.forgotten = self.counter("forgotten", "event ids deleted because of their age")
        self.reused = self.counter(
            "event_ids_reused", "events that reuse a forgotten id with different content"
        )
        self.anomalies = self.counter(
            "order_anomalies",
            "orders whose document gained an anomaly, even if the anomaly disappeared later",
            "anomaly",
        )
        self.chunk_records = self.histogram(
            "chunk_records", "records in each folded chunk", "hop", buckets=_RECORDS
        )
        self.chunk_seconds = self.histogram(
            "chunk_seconds",
            "time to fold a chunk and write its outputs and state",
            "hop",
            buckets=_SECONDS,
        )
        self.rebalances = self.counter("rebalances", "rebalances that this worker took part in")
        self.ready = self.gauge("ready", "1 if this worker's tables can be read, else 0")
        self.partitions = self.gauge(
            "partitions", "partitions of each table on this worker, by role", "role"
        )
        self.lag_records = self.gauge(
            "lag_records",
            "records of this worker's partitions that are not folded and committed yet; absent "
            "while Kafka does not answer",
            "hop",
            "partition",
        )
        self.lag_seconds = self.gauge(
            "lag_seconds",
            "age, by the record's timestamp, of the oldest record that is fetched but not folded; "
            "0 if there is no such record, and absent while the tables are recovered",
            "hop",
            "partition",
        )
        self.recovery = self.gauge(
            "recovery_records", "changelog records left to read until the worker is ready"
        )
        self.table_keys = self.gauge(
            "table_keys", "keys in this worker's partitions, as RocksDB estimates them", "table"
        )
        self.table_bytes = self.gauge(
            "table_bytes", "bytes of the table's files and write buffers", "table"
        )
        self.topic_faults = self.gauge(
            "topic_faults",
            "topics that are missing, were created again or have another number of partitions, and "
            "settings and replicas that are not as expected",
        )
        self.deleted_records = self.gauge(
            "deleted_records",
            "records that Kafka has deleted from a topic that is kept forever",
            "topic",
        )
        self.certificates = self.gauge(*EXPIRY_METRIC, "side")
        self._begin_at_zero()
        ProcessCollector(registry=self.registry)

    def judged(self, counts: Mapping[str, int], folded: Mapping[str, int] | None = None) -> None:
        """Count the outcomes of a chunk in `dedupe`, and the folded events by their types."""
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
        """Count the records that an agent rejected, by reason."""
        for reason, number in reasons.items():
            self.rejected.labels(reason).inc(number)

    def appeared(self, anomalies: Mapping[str, int]) -> None:
        """Count the anomalies that a chunk added to orders."""
        for name, number in anomalies.items():
            self.anomalies.labels(name).inc(number)

    def timed(self, hop: str, work: Work) -> Work:
        """Return a function that does ``work``, and that counts and times each finished chunk."""
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
        """Create the known series at 0: Prometheus's `increase` ignores a series' first value."""
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
    """Return the counts of a counter that has one label: a count for each value of the label."""
    return {
        next(iter(sample.labels.values())): int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
