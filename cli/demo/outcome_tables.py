"""Shows people what came of the sample.

In: an outcome and what is kept in ``plexy.rejected``. Out: rich tables. Amounts are in major units
here, and only here: nothing is computed with them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import msgspec
from aiokafka.structs import ConsumerRecord
from rich import box
from rich.table import Table
from rich.text import Text

from cli.demo.sample import Outcome, Refusal, Rejected
from ledger.money import major_units

_COLOURS: Final = {
    "paid": "green",
    "refunded": "cyan",
    "partially_refunded": "cyan",
    "failed": "yellow",
    "over_refunded": "red",
}
_DIGEST_CHARS: Final = 64


class RejectedRow(msgspec.Struct, frozen=True, order=True):
    """A record of ``plexy.rejected``; ``source`` is the topic that it came from, or ``http``."""

    source: str
    key: str
    reason: str
    detail: str

    @classmethod
    def of(cls, record: ConsumerRecord[bytes, bytes]) -> Self:
        """Read a record's key and headers."""
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        source = headers.get("source-topic", "")
        key = (record.key or b"").decode(errors="replace")
        return cls(source, key, headers.get("reason", ""), headers.get("detail", ""))

    @property
    def rejected(self) -> Rejected:
        """What of it the sample expects."""
        return Rejected(self.key, self.reason)


def orders_table(outcome: Outcome) -> Table:
    """Return the orders, one line for each of an order's currencies."""
    table = _table("Orders, as the worker's views show them", "order", "status")
    for header in ("paid", "refunded", "net"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("", "payments", "anomalies"):
        table.add_column(header, overflow="fold")
    for _, document in sorted(outcome.orders.items()):
        _add_order(table, document)
    return table


def refused_table(refused: Iterable[Refusal]) -> Table:
    """Return what the ingress refused: nothing of it counts."""
    table = _table("Refused by the ingress", "delivery", "status", "code")
    for each in refused:
        table.add_row(*_cells(each.delivery, str(each.status), each.code))
    return table


def rejected_table(rows: Iterable[RejectedRow]) -> Table:
    """Return what is kept in ``plexy.rejected``: by the worker, or by the ingress (``http``)."""
    table = _table("Kept in plexy.rejected, and not counted", "from", "event", "reason", "why")
    for row in sorted(rows):
        table.add_row(*_cells(row.source, _short(row.key), row.reason, row.detail))
    return table


def _table(title: str, *headers: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _add_order(table: Table, document: Mapping[str, Any]) -> None:
    status = Text(document["status"], style=_COLOURS.get(document["status"], ""))
    payments = "\n".join(f"{each['payment_id']} {each['status']}" for each in document["payments"])
    anomalies = Text("\n".join(document["anomalies"]), style="red")
    sums = [_amounts(currency, total) for currency, total in document["totals"].items()]
    first, *others = sums or [("", "", "", "")]
    table.add_row(Text(document["order_id"]), status, *first, Text(payments), anomalies)
    for amounts in others:
        table.add_row("", "", *amounts, "", "")


def _amounts(currency: str, total: Mapping[str, int]) -> tuple[str, str, str, str]:
    paid, refunded, net = (
        major_units(total[name], currency) for name in ("paid", "refunded", "net")
    )
    return paid, refunded, net, currency


def _cells(*texts: str) -> list[Text]:
    """Return cells in which nothing is markup: what came from outside may hold brackets."""
    return [Text(text) for text in texts]


def _short(key: str) -> str:
    """Shorten a SHA-256; an event's id is shown whole."""
    return f"{key[:12]}…" if len(key) == _DIGEST_CHARS else key
