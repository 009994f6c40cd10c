"""Delivers the bundled sample to a temporary ledger, and checks the outcome: the command ``demo``.

The ledger is a real Kafka, an ingress and a worker, on free ports and in a new folder. The demo
ignores the user's settings, except for the folder in which the embedded Kafka is cached. The demo
succeeds only if every document, refusal and rejection is as expected.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import msgspec
from aiokafka.structs import ConsumerRecord
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.demo import sample
from cli.demo.verdict import differences
from cli.errors import ViewError
from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.ports import base_url
from cli.run.local import kafka_cache, running, sigterm_as_interrupt
from cli.run.programs import Command
from cli.send import deliver, signed_headers
from cli.settings import DEVELOPMENT_SECRET, WEBHOOK_PATH, DemoSettings
from cli.topics.lag import Lag, progress_bar
from cli.topics.ledger_reader import open_reader
from ledger.money import major_units
from runtime.kafka.topics import TopicSettings, ensure_topics

_COLOURS: Final = {
    "paid": "green",
    "refunded": "cyan",
    "partially_refunded": "cyan",
    "failed": "yellow",
    "over_refunded": "red",
    "disputed": "yellow",
    "charged_back": "red",
    "authorised": "cyan",
    "voided": "yellow",
}
_DIGEST_CHARS: Final = 64
_LOOPBACK: Final = "127.0.0.1"
_FOLDED_WITHIN_S: Final = 60.0
_LONG_AGO_S: Final = 3600


class Installation(msgspec.Struct, frozen=True):
    """The running parts of the demo's ledger."""

    webhook_url: str
    views_url: str
    settings: TopicSettings
    commands: tuple[Command, ...]

    def check_alive(self) -> None:
        """Raise ``ProgramEndedError`` if a program has ended."""
        for command in self.commands:
            command.check_alive()


class RejectedRow(msgspec.Struct, frozen=True, order=True):
    """A record of ``plexy.rejected``; ``source`` is the record's original topic, or ``http``."""

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
    def rejected(self) -> sample.RejectedEvent:
        """The part of the record that is compared with the sample."""
        return sample.RejectedEvent(self.key, self.reason)


@contextmanager
def installed(
    environment: Mapping[str, str], folder: Path, cache: KafkaCache, console: Console
) -> Iterator[Installation]:
    """Start the ledger and wait until it is ready; after the block, stop it, with Kafka last."""
    with ExitStack() as stack:
        broker = EmbeddedKafka(folder / "kafka", cache=cache)
        console.print("Starting Kafka, an ingress and a worker")
        stack.enter_context(broker)
        ours = _own_environment(environment, broker.bootstrap, folder)
        settings = TopicSettings.from_environment(ours)
        asyncio.run(ensure_topics(settings))
        ingest, worker = Command("ingest", ours), Command("worker", ours)
        ingest_url = base_url(_LOOPBACK, int(ours["LEDGER_INGEST_PORT"]))
        views_url = base_url(_LOOPBACK, int(ours["LEDGER_WEB_PORT"]))
        probes = [(ingest, f"{ingest_url}/readyz"), (worker, f"{views_url}/readyz")]
        stack.enter_context(running(probes))
        yield Installation(ingest_url + WEBHOOK_PATH, views_url, settings, (ingest, worker))
        console.print("Stopping worker and ingress, then Kafka")


def _own_environment(given: Mapping[str, str], bootstrap: str, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if not name.startswith("LEDGER_")}
    return kept | {
        "LEDGER_KAFKA_BOOTSTRAP": bootstrap,
        "LEDGER_DATA_DIR": str(folder),
        "LEDGER_INGEST_PORT": str(free_port()),
        "LEDGER_WEB_PORT": str(free_port()),
        "LEDGER_WEBHOOK_SECRETS": DEVELOPMENT_SECRET,
        # The demo has no second worker that could keep a copy of the tables.
        "LEDGER_STANDBY_REPLICAS": "0",
    }


def demo(environment: Mapping[str, str], expected: Path | None, console: Console) -> bool:
    """Run the demo; return whether the outcome is as expected."""
    wanted = sample.expected(expected)
    cache = kafka_cache(DemoSettings.from_environment(environment))
    began_s = time.monotonic()
    with (
        sigterm_as_interrupt(),
        tempfile.TemporaryDirectory(prefix="plexy-ledger-") as folder,
        installed(environment, Path(folder), cache, console) as ledger,
    ):
        refused = _deliver_all(ledger, console)
        rows, orders = asyncio.run(_collect(ledger, console))
    rejected = tuple(row.rejected for row in rows)
    actual = sample.SampleOutcome(refused=refused, rejected=rejected, orders=orders)
    console.print(orders_table(actual), refused_table(refused), rejected_table(rows))
    took_s = time.monotonic() - began_s
    console.print(f"The demo took {took_s:.0f} s, including start and stop.", highlight=False)
    return _conclude(differences(wanted, actual), actual, console)


def _deliver_all(ledger: Installation, console: Console) -> tuple[sample.RefusedDelivery, ...]:
    """Deliver the sample in the sequence of its file; return the refused deliveries."""
    with httpx.Client(trust_env=False) as client:
        answers = [
            (each.name, deliver(client, ledger.webhook_url, each.raw, _headers(each)))
            for each in sample.deliveries()
        ]
    statuses = sorted(Counter(answer.status for _, answer in answers).items())
    counts = ", ".join(f"{count} x {status}" for status, count in statuses)
    console.print(f"{len(answers)} deliveries to {ledger.webhook_url}: {counts}", soft_wrap=True)
    return tuple(
        sample.RefusedDelivery(name, answer.status, answer.code)
        for name, answer in answers
        if not answer.accepted
    )


def _headers(delivery: sample.SampleDelivery) -> dict[str, str]:
    match delivery.signature:
        case "good":
            return signed_headers(delivery.raw, DEVELOPMENT_SECRET)
        case "stale":
            then_s = time.time() - _LONG_AGO_S
            return signed_headers(delivery.raw, DEVELOPMENT_SECRET, at_s=then_s)
        case "forged":
            return signed_headers(delivery.raw, "whsec_somebody_elses")
        case "missing":
            return {"Content-Type": "application/json"}


async def _collect(
    ledger: Installation, console: Console
) -> tuple[list[RejectedRow], dict[str, Any]]:
    """Wait for the worker; read the rejected events from Kafka, and the orders over HTTP."""
    async with open_reader(ledger.settings) as reader:
        with progress_bar(console) as report:

            def measured(lag: Lag) -> None:
                ledger.check_alive()
                report(lag)

            await reader.settle(_FOLDED_WITHIN_S, measured)
        rejected = await reader.whole(reader.names.topics.rejected)
        orders = await reader.whole(reader.names.topics.orders)
    # The topic lists all orders, so an order that is not expected is also found.
    latest = {record.key.decode(): record.value for record in orders if record.key}
    order_ids = sorted(order_id for order_id, value in latest.items() if value is not None)
    documents = await _read_orders(ledger.views_url, order_ids)
    return [RejectedRow.of(record) for record in rejected], documents


async def _read_orders(views_url: str, order_ids: Sequence[str]) -> dict[str, Any]:
    documents = {}
    async with httpx.AsyncClient(base_url=views_url, trust_env=False) as client:
        for order_id in order_ids:
            response = await client.get(f"/orders/{quote(order_id, safe='')}")
            if not response.is_success:
                raise ViewError(f"{response.url} answered {response.status_code}: {response.text}")
            documents[order_id] = sample.without_places(response.json())
    return documents


def _conclude(found: Sequence[str], actual: sample.SampleOutcome, console: Console) -> bool:
    if found:
        console.print("The outcome is not as expected:", style="bold red")
        for line in found:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        return False
    console.print(
        f"As expected: {len(actual.orders)} orders, {len(actual.refused)} refused deliveries and "
        f"{len(actual.rejected)} rejected events, compared in full.",
        style="bold green",
        highlight=False,
        soft_wrap=True,
    )
    return True


def orders_table(outcome: sample.SampleOutcome) -> Table:
    """Return the table of orders, with a line for each order and currency."""
    table = _table("Orders, as the worker's views show them", "order", "status")
    for header in ("paid", "refunded", "net"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("", "payments", "anomalies"):
        table.add_column(header, overflow="fold")
    for _, document in sorted(outcome.orders.items()):
        _add_order(table, document)
    return table


def refused_table(refused: Iterable[sample.RefusedDelivery]) -> Table:
    """Return the table of deliveries that the ingress refused."""
    table = _table("Refused by the ingress", "delivery", "status", "code")
    for each in refused:
        table.add_row(*_cells(each.delivery, str(each.status), each.code))
    return table


def rejected_table(rows: Iterable[RejectedRow]) -> Table:
    """Return the table of ``plexy.rejected``, which both the worker and the ingress write."""
    table = _table("Kept in plexy.rejected, but not counted", "from", "event", "reason", "why")
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
    """Return cells without markup, because ids and details from outside may contain brackets."""
    return [Text(text) for text in texts]


def _short(key: str) -> str:
    """Return a key for display: a SHA-256 is shortened, and an event's id is unchanged."""
    return f"{key[:12]}…" if len(key) == _DIGEST_CHARS else key
