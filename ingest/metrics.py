"""Counts ingress' deliveries by outcome and duration, and serves the counts to Prometheus.

Input: each delivery's outcome, from the hot path. Output: ``GET /metrics`` on a separate address,
which the internet does not reach. Invariant: counting a delivery takes no lock and creates no
object, because a process only adds to numbers, which become metrics when Prometheus asks.

Several processes may share the port for deliveries, so Prometheus would reach an arbitrary process
at that port. So the numbers of all processes are in shared memory. Each process has a row of its
own, to which no other process writes. The process that started the others reads all rows and serves
the metrics.
"""

import asyncio
import mmap
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final, Literal, Protocol, get_args

from prometheus_client import ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ingest.answers import STATUS
from ingest.health import ReadinessProbe
from runtime.kafka.certificates import Side
from runtime.kafka.new_connections import EXPIRY_METRIC
from runtime.metrics import Metrics
from runtime.settings import SettingsError

# The codes of answers to requests that are not deliveries, or are not recognised as deliveries.
_NO_DELIVERY: Final = frozenset(
    {"malformed_request", "head_too_large", "not_found", "method_not_allowed", "internal_error"}
)
_STATUS: Final[Mapping[str, int | None]] = {
    "accepted": 200,
    **{code: status for code, status in STATUS.items() if code not in _NO_DELIVERY},
    "client_disconnected": None,
}
OUTCOMES: Final = tuple(_STATUS)
DialectName = Literal["sdk", "pay"]
_DIALECTS: Final[tuple[DialectName, ...]] = get_args(DialectName)
_COUNTS: Final = len(_DIALECTS) * len(OUTCOMES)

# Upper bounds in seconds: Kafka acknowledges within milliseconds, and no answer takes more than ten
# seconds.
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ANSWERS: Final = ("2xx", "4xx", "5xx")

# A row begins with the counts by dialect and outcome; the buckets and the sum of each answer class
# follow.
_BUCKETS: Final = len(BOUNDS_S) + 1
_HISTOGRAMS: Final = {answer: _COUNTS + n * (_BUCKETS + 1) for n, answer in enumerate(_ANSWERS)}
_REST: Final = _COUNTS + len(_ANSWERS) * (_BUCKETS + 1)
(
    _KEPT_BYTES,
    _ERRORS,
    _IN_FLIGHT,
    _BODY_BYTES,
    _AVAILABLE,
    _LOOKED_AT,
    _SECONDS_OFF,
    _OURS_EXPIRES,
    _BROKERS_EXPIRE,
    _TOPIC_FAULTS,
) = range(_REST, _REST + 10)
_ROW: Final = _REST + 10
_EXPIRIES: Final[Mapping[Side, int]] = {"ours": _OURS_EXPIRES, "brokers": _BROKERS_EXPIRE}
# For each dialect and outcome: the index of the count, and the index at which the histogram begins.
_PLACES: Final[Mapping[tuple[DialectName, str], tuple[int, int | None]]] = {
    (dialect, outcome): (n, None if status is None else _HISTOGRAMS[f"{status // 100}xx"])
    for n, (dialect, (outcome, status)) in enumerate(product(_DIALECTS, _STATUS.items()))
}

# Some values are not counted, but read at intervals; these values are at most this old.
_LOOK_EVERY_S: Final = 1.0


class Numbers(Protocol):
    """A row of numbers: a list, or memory that processes share."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, number: float, /) -> None: ...


def new_rows(processes: int) -> Sequence[Numbers]:
    """Return a row for each process; call this before the processes start."""
    if processes == 1:
        return [[0.0] * _ROW]
    # An aligned write of eight bytes is atomic, so no reader sees half a number.
    memory = memoryview(mmap.mmap(-1, processes * _ROW * 8)).cast("d")
    return [memory[n * _ROW : (n + 1) * _ROW] for n in range(processes)]


class ProcessCounts:
    """The numbers of one process."""

    __slots__ = ("_row",)

    def __init__(self, row: Numbers | None = None) -> None:
        self._row = new_rows(1)[0] if row is None else row

    def delivered(self, dialect: DialectName, outcome: str, took_s: float, kept_bytes: int) -> None:
        """Count a delivery by outcome, with its duration and the bytes that the log has kept."""
        row = self._row
        count, histogram = _PLACES[dialect, outcome]
        row[count] += 1
        if kept_bytes:
            row[_KEPT_BYTES] += kept_bytes
        if histogram is not None:
            row[histogram + bisect_left(BOUNDS_S, took_s)] += 1
            row[histogram + _BUCKETS] += took_s

    def failed(self) -> None:
        """Count a request that failed because of a bug."""
        self._row[_ERRORS] += 1

    def signed_at_another_time(self, off_s: float) -> None:
        """Record by how many seconds our clock is ahead of the time in a good signature."""
        self._row[_SECONDS_OFF] = off_s

    def certificate_expires(self, side: Side, at_s: float) -> None:
        """Record the earliest expiry of a side's certificates."""
        self._row[_EXPIRIES[side]] = at_s

    async def keep_looking(self, log: ReadinessProbe, load: Callable[[], tuple[int, int]]) -> None:
        """Every second until cancelled, record the load and whether the log is available.

        ``load`` returns the deliveries in flight, and the bytes of large bodies in memory.
        """
        while True:
            available = await log.trouble() is None
            self._row[_IN_FLIGHT], self._row[_BODY_BYTES] = load()
            self._row[_TOPIC_FAULTS] = log.topic_faults
            self._row[_AVAILABLE], self._row[_LOOKED_AT] = available, time.time()
            await asyncio.sleep(_LOOK_EVERY_S)


class IngressMetrics(Metrics, Collector):
    """The rows of all processes, as metrics."""

    def __init__(self, rows: Sequence[Numbers], max_in_flight: int) -> None:
        super().__init__("ingress")
        self._rows = rows
        self._max_in_flight = max_in_flight
        self._deliveries = self.declare(
            "counter", "deliveries", "deliveries by dialect and outcome", "dialect", "outcome"
        )
        self._seconds = self.declare(
            "histogram",
            "answer_seconds",
            "time from a delivery's head to its answer, by the class of the answer's status",
            "answer",
        )
        self._kept_bytes = self.declare(
            "counter", "kept_bytes", "bytes of the bodies that the log has acknowledged"
        )
        self._errors = self.declare(
            "counter", "internal_errors", "requests answered 500 because of a bug, on any path"
        )
        self._in_flight = self.declare(
            "gauge", "in_flight", "deliveries that waited for the log, a second ago", "process"
        )
        self._limit = self.declare(
            "gauge", "in_flight_limit", "largest number of deliveries that may wait in one process"
        )
        self._body_bytes = self.declare(
            "gauge",
            "large_body_bytes",
            "bytes of bodies over 16 KiB in memory, a second ago; the limit is 64 MiB",
            "process",
        )
        self._available = self.declare(
            "gauge", "log_available", "1 if Kafka could keep a delivery, else 0", "process"
        )
        self._topic_faults = self.declare(
            "gauge",
            "topic_faults",
            "faults of the topics that ingress appends to; while a fault makes ingress refuse "
            "every delivery, only this fault is counted",
            "process",
        )
        self._looked_at = self.declare(
            "gauge",
            "looked_timestamp_seconds",
            "when the process last asked Kafka, as it does each second",
            "process",
        )
        self._seconds_off = self.declare(
            "gauge",
            "clock_seconds_off",
            "this machine's time minus the time in the last signature that was refused only for "
            "its time; 0 if there was no such signature",
            "process",
        )
        self._certificates = self.declare("gauge", *EXPIRY_METRIC, "process", "side")
        self.registry.register(self)
        if len(rows) == 1:
            # If there are several processes, the process that serves this page does nothing else,
            # so its own memory and CPU time say little about ingress.
            ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their current values."""
        deliveries = CounterMetricFamily(
            self._deliveries.name, self._deliveries.text, labels=self._deliveries.labels
        )
        for labels, (place, _) in _PLACES.items():
            deliveries.add_metric(labels, self._sum(place))
        yield deliveries
        yield self._histogram()
        for metric, place in ((self._kept_bytes, _KEPT_BYTES), (self._errors, _ERRORS)):
            yield CounterMetricFamily(metric.name, metric.text, value=self._sum(place))
        yield GaugeMetricFamily(self._limit.name, self._limit.text, value=self._max_in_flight)
        for metric, place in (
            (self._in_flight, _IN_FLIGHT),
            (self._body_bytes, _BODY_BYTES),
            (self._available, _AVAILABLE),
            (self._topic_faults, _TOPIC_FAULTS),
            (self._looked_at, _LOOKED_AT),
            (self._seconds_off, _SECONDS_OFF),
        ):
            gauge = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
            for n, row in enumerate(self._rows):
                gauge.add_metric([str(n)], row[place])
            yield gauge

        yield self._expiries()

    def _expiries(self) -> GaugeMetricFamily:
        metric = self._certificates
        gauge = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
        for n, row in enumerate(self._rows):
            for side, place in _EXPIRIES.items():
                if row[place]:
                    gauge.add_metric([str(n), side], row[place])
        return gauge

    def _histogram(self) -> HistogramMetricFamily:
        metric = self._seconds
        family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for answer, begin in _HISTOGRAMS.items():
            total, buckets = 0.0, []
            for n, bound in enumerate(bounds):
                total += self._sum(begin + n)
                buckets.append((bound, total))
            family.add_metric([answer], buckets, self._sum(begin + _BUCKETS))
        return family

    def _sum(self, place: int) -> float:
        return sum(row[place] for row in self._rows)


def serve_metrics(metrics: Metrics, host: str, port: int) -> None:
    """Serve the page on a thread of its own; raise ``SettingsError`` if the address is taken."""
    try:
        start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise SettingsError(
            f"LEDGER_INGEST_METRICS_HOST={host}, LEDGER_INGEST_METRICS_PORT={port}: can't listen "
            f"there ({error.strerror}); stop the program that listens there, or choose another port"
        ) from None
