"""The demo's own ledger: a real Kafka, an ingress and a worker, on free ports, in a new folder.

In: a folder, and where the embedded Kafka is fetched to. Out: an ``Installation`` that runs, for as
long as the block. Never: a setting of the user's, but for that cache.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.local import DEVELOPMENT_SECRET, WEBHOOK_PATH, running
from cli.ports import base_url
from cli.programs import Command
from runtime.kafka.topics import TopicSettings, ensure_topics

_LOOPBACK: Final = "127.0.0.1"


class Installation(msgspec.Struct, frozen=True):
    """Where the parts of the demo's ledger are."""

    webhook_url: str
    views_url: str
    settings: TopicSettings
    commands: tuple[Command, ...]

    def check_alive(self) -> None:
        """Raise ``ProgramEndedError`` if a program has ended."""
        for command in self.commands:
            command.check_alive()


@contextmanager
def installed(
    environment: Mapping[str, str], folder: Path, cache: KafkaCache, console: Console
) -> Iterator[Installation]:
    """Start everything and wait until it is ready; stop it after the block, Kafka last."""
    with ExitStack() as stack:
        broker = EmbeddedKafka(folder / "kafka", cache=cache)
        console.print("Starting Kafka, an ingress and a worker")
        stack.enter_context(broker)
        ours = _environment(environment, broker.bootstrap, folder)
        settings = TopicSettings.from_environment(ours)
        asyncio.run(ensure_topics(settings))
        ingest, worker = Command("ingest", ours), Command("worker", ours)
        ingest_url = base_url(_LOOPBACK, int(ours["LEDGER_INGEST_PORT"]))
        views_url = base_url(_LOOPBACK, int(ours["LEDGER_WEB_PORT"]))
        probes = [(ingest, f"{ingest_url}/readyz"), (worker, f"{views_url}/readyz")]
        stack.enter_context(running(probes))
        yield Installation(ingest_url + WEBHOOK_PATH, views_url, settings, (ingest, worker))
        console.print("Stopping worker and ingress, then Kafka")


def _environment(given: Mapping[str, str], bootstrap: str, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if not name.startswith("LEDGER_")}
    return kept | {
        "LEDGER_KAFKA_BOOTSTRAP": bootstrap,
        "LEDGER_DATA_DIR": str(folder),
        "LEDGER_INGEST_PORT": str(free_port()),
        "LEDGER_WEB_PORT": str(free_port()),
        "LEDGER_WEBHOOK_SECRETS": DEVELOPMENT_SECRET,
        # There is no second worker that could keep a copy.
        "LEDGER_STANDBY_REPLICAS": "0",
    }
