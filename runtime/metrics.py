"""Metrics: what a program tells Prometheus, each declared once with its name, labels and meaning.

In: a program's name, and its metrics as it declares them. Out: a registry of its own, the page that
Prometheus reads, and the rows of the reference of metrics. Never: the process' global registry, in
which whatever a library declares would stand too.
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

# The time at which each counter began, as one more series for each: a restart shows by its values.
disable_created_metrics()  # type: ignore[no-untyped-call]

Kind = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True):
    """One metric; ``name`` is what a query calls it, but for the suffixes of a histogram."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


class Metrics:
    """A program's metrics."""

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
        """Declare what only grows; ``_total`` is put behind the name."""
        metric = self.declare("counter", name, text, *labels)
        return Counter(metric.name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Declare what goes up and down."""
        metric = self.declare("gauge", name, text, *labels)
        return Gauge(metric.name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Declare a distribution; ``buckets`` are upper bounds."""
        metric = self.declare("histogram", name, text, *labels)
        return Histogram(metric.name, text, labels, buckets=buckets, registry=self.registry)

    def page(self) -> bytes:
        """Return what Prometheus reads, as ``CONTENT_TYPE``."""
        return generate_latest(self.registry)
