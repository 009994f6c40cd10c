"""The reference of metrics, `docs/metrics.md`, made from what the programs declare.

In: each program's metrics, made as the program makes them. Out: a table in Markdown for each; by
itself, `python -m cli.metrics_table` writes the page anew. Never: a metric that no program has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cli.verification.audit import AuditMetrics
from ingest.metrics import IngressMetrics, new_rows
from processors.metrics import WorkerMetrics
from runtime.metrics import Metrics

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_BEGIN: Final = "<!-- metrics: made by `python -m cli.metrics_table` -->\n"
_END: Final = "<!-- /metrics -->\n"


def programs() -> Mapping[str, Metrics]:
    """Return each program's metrics, as it has them before anything has happened."""
    return {
        "Ingress": IngressMetrics(new_rows(1), max_in_flight=1000),
        "Worker": WorkerMetrics(),
        "Audit": AuditMetrics(),
    }


def as_markdown() -> str:
    """Return a table for each program."""
    return "\n".join(line for name, metrics in programs().items() for line in _table(name, metrics))


def with_tables(page: str) -> str:
    """Return the page with the tables of now in place of those that it has."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{as_markdown()}\n{_END}{after}"


def _table(name: str, metrics: Metrics) -> Iterator[str]:
    yield from (f"\n## {name}\n", "| Metric | Kind | Labels | Meaning |", "|---|---|---|---|")
    for metric in metrics.declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
