"""The command ``demo``: the bundled sample through a real Kafka, ingress and worker, and checked.

In: the sample. Out: tables of what came of it, and whether that is what was written down before.
Never: a success where any document, refusal or rejection differs.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from rich.console import Console

from cli import sample
from cli.demo_ledger import Installation, installed
from cli.errors import ViewError
from cli.lag import Lag
from cli.ledger_reader import open_reader
from cli.local import DEVELOPMENT_SECRET, kafka_cache, sigterm_as_interrupt
from cli.outcome_tables import RejectedRow, orders_table, refused_table, rejected_table
from cli.progress import progress_bar
from cli.sender import Answer, deliver, signed_headers
from cli.settings import DemoSettings
from cli.verdict import differences

_FOLDED_WITHIN_S: Final = 60.0
_LONG_AGO_S: Final = 3600


def demo(environment: Mapping[str, str], expected: Path | None, console: Console) -> bool:
    """Run the demo; return whether the outcome is the expected one."""
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
    actual = sample.Outcome(refused=refused, rejected=rejected, orders=orders)
    console.print(orders_table(actual), refused_table(refused), rejected_table(rows))
    took_s = time.monotonic() - began_s
    console.print(f"From the first start to the last stop it took {took_s:.0f} s.", highlight=False)
    return _conclude(differences(wanted, actual), actual, console)


def _deliver_all(ledger: Installation, console: Console) -> tuple[sample.Refusal, ...]:
    """Deliver the sample in its order; return what was refused."""
    with httpx.Client(trust_env=False) as client:
        answers = [
            (each.name, deliver(client, ledger.webhook_url, each.raw, _headers(each)))
            for each in sample.deliveries()
        ]
    statuses = sorted(Counter(answer.status for _, answer in answers).items())
    counts = ", ".join(f"{count} x {status}" for status, count in statuses)
    console.print(f"{len(answers)} deliveries to {ledger.webhook_url}: {counts}", soft_wrap=True)
    return tuple(_refusals(answers))


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


def _refusals(answers: Sequence[tuple[str, Answer]]) -> list[sample.Refusal]:
    return [
        sample.Refusal(name, answer.status, answer.code)
        for name, answer in answers
        if not answer.accepted
    ]


async def _collect(
    ledger: Installation, console: Console
) -> tuple[list[RejectedRow], dict[str, Any]]:
    """Wait until all is folded; read what was rejected from Kafka, and every order over HTTP."""
    async with open_reader(ledger.settings) as reader:
        with progress_bar(console) as report:

            def measured(lag: Lag) -> None:
                ledger.check_alive()
                report(lag)

            await reader.settle(_FOLDED_WITHIN_S, measured)
        rejected = await reader.whole(reader.names.topics.rejected)
        orders = await reader.whole(reader.names.topics.orders)
    # The topic says which orders there are, so that one that should not be there is found too.
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


def _conclude(found: Sequence[str], actual: sample.Outcome, console: Console) -> bool:
    if found:
        console.print("The outcome is not the expected one:", style="bold red")
        for line in found:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        return False
    console.print(
        f"As expected: {len(actual.orders)} orders, {len(actual.refused)} refused deliveries and "
        f"{len(actual.rejected)} rejected events, compared whole.",
        style="bold green",
        highlight=False,
        soft_wrap=True,
    )
    return True
