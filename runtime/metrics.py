"""Declares a program's metrics for Prometheus, each in one place: its name, labels and meaning.

Input: the program's name and its declarations. Output: the page that Prometheus reads, and the rows
of the documentation's reference of metrics. Invariant: the metrics are in a registry of their own,
because libraries may declare metrics in the global registry.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

PREFIX: Final = "plexy_ledger"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# The series with each counter's start time is not needed, because a falling value shows a restart.
disable_created_metrics()  # type: ignore[no-untyped-call]

Kind = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True):
    """One metric; ``name`` is its name in a query (for a histogram, a query adds a suffix)."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


class Metrics:
    """The metrics of one program."""

    def __init__(self, program: str) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Metric] = []
        self._program = program

    def declare(self, kind: Kind, name: str, text: str, *labels: str) -> Metric:
        """Declare a metric that the program collects itself."""
        suffix = "_total" if kind == "counter" else ""
        metric = Metric(f"{PREFIX}_{self._program}_{name}{suffix}", kind, text, labels)
        self.declared.append(metric)
        return metric

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Declare a value that only grows; ``_total`` is appended to the name."""
        metric = self.declare("counter", name, text, *labels)
        return Counter(metric.name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Declare a value that goes up and down."""
        metric = self.declare("gauge", name, text, *labels)
        return Gauge(metric.name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Declare a distribution; ``buckets`` are its upper bounds."""
        metric = self.declare("histogram", name, text, *labels)
        return Histogram(metric.name, text, labels, buckets=buckets, registry=self.registry)

    def page(self) -> bytes:
        """Return the page that Prometheus reads, in the format ``CONTENT_TYPE``."""
        return generate_latest(self.registry)
