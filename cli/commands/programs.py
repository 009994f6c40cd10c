"""The commands that start programs and create their topics."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.commands import completion
from cli.commands.declare import command, console


@command("plexy-ledger run", "LEDGER_DATA_DIR=/tmp/ledger plexy-ledger run")
def run() -> None:
    """Run Kafka, an ingress and a worker, until Ctrl-C.

    Starts an embedded Kafka, unless LEDGER_KAFKA_BOOTSTRAP is set. Restarts a program that ends by
    itself. Prints the addresses, and a `curl` line that sends a signed event.
    """
    from cli.run.command import run as run_all

    run_all(os.environ)


@command("plexy-ledger demo")
def demo(
    expected: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="your own file with the expected outcome"),
    ] = None,
) -> bool:
    """Run a sample through a real Kafka, and check the outcome.

    Delivers webhooks over HTTP to an ingress, lets a worker fold them, and shows the orders, the
    refused deliveries and the rejected records. The exit code is 0 only if all of them are as
    expected. Everything runs on free ports and in a temporary folder, and is stopped at the end.
    """
    from cli.demo.command import demo as show

    return show(os.environ, expected, console())


@command("LEDGER_KAFKA_PORT=29092 plexy-ledger kafka", "plexy-ledger kafka --brokers 3")
def kafka(
    brokers: Annotated[
        int,
        typer.Option(
            min=1,
            help="1 broker, or 3 brokers that replicate each other, on consecutive ports",
            autocompletion=completion.brokers,
        ),
    ] = 1,
) -> None:
    """Run only the embedded Kafka, until Ctrl-C.

    If there are three brokers, you may kill any one of them and empty its disk (delete its folder
    `data`). The command restarts the broker after 5 s, and the broker receives its records from the
    other two brokers.
    """
    from cli.brokers import run_broker
    from cli.settings import BrokerSettings

    run_broker(BrokerSettings.from_environment(os.environ), brokers)


@command("plexy-ledger topics", "plexy-ledger topics --check")
def topics(
    check: Annotated[bool, typer.Option("--check", help="create nothing, only check")] = False,
) -> None:
    """Create the missing topics, and check the existing topics."""
    import asyncio

    from runtime.kafka.topics import TopicSettings, check_topics, ensure_topics

    settings = TopicSettings.from_environment(os.environ)
    report = asyncio.run((check_topics if check else ensure_topics)(settings))
    for name in report.created:
        typer.echo(f"created  {name}")
    for name in report.found:
        typer.echo(f"found    {name}")


@command("LEDGER_WEBHOOK_SECRETS=whsec_development LEDGER_INGEST_PORT=8001 plexy-ledger ingest")
def ingest() -> None:
    """Run an ingress, which appends webhooks to the log in Kafka."""
    from ingest.server import serve
    from ingest.settings import IngestSettings

    serve(IngestSettings.from_environment(os.environ))


@command("LEDGER_DATA_DIR=.ledger-2 LEDGER_WEB_PORT=6067 plexy-ledger worker")
def worker() -> None:
    """Run a worker, which folds the log and serves the views."""
    import asyncio

    from processors.settings import WorkerSettings
    from runtime.kafka.administration import administration
    from runtime.kafka.identities import require_expiration
    from runtime.kafka.topics import ensure_topics

    async def check(settings: WorkerSettings) -> None:
        await ensure_topics(settings)
        async with administration(settings) as admin:
            await require_expiration(admin)

    settings = WorkerSettings.from_environment(os.environ)
    # The worker repeats these checks. They are also made here, because here a failure of Kafka is
    # shown as one line without a traceback.
    asyncio.run(check(settings))
    from processors.worker import run as run_worker

    run_worker(settings)
