"""Writes a Markdown table of each program's metrics, from the metrics that the program declares.

The documentation's page on metrics has these tables; ``python -m cli.metrics_table`` prints them.
"""

import sys
from collections.abc import Iterator, Mapping

from cli.verification.audit import AuditMetrics
from ingest.metrics import IngressMetrics, new_rows
from processors.metrics import WorkerMetrics
from runtime.metrics import Metrics


def programs() -> Mapping[str, Metrics]:
    """Return each program's metrics as the program creates them at its start."""
    return {
        "Ingress": IngressMetrics(new_rows(1), max_in_flight=1000),
        "Worker": WorkerMetrics(),
        "Audit": AuditMetrics(),
    }


def as_markdown() -> str:
    """Return a table for each program."""
    return "\n".join(line for name, metrics in programs().items() for line in _table(name, metrics))


def _table(name: str, metrics: Metrics) -> Iterator[str]:
    yield from (f"\n## {name}\n", "| Metric | Kind | Labels | Meaning |", "|---|---|---|---|")
    for metric in metrics.declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |"


if __name__ == "__main__":
    sys.stdout.write(f"{as_markdown()}\n")
