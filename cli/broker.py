"""The command ``kafka``: the embedded Kafka in the foreground, until Ctrl-C or SIGTERM.

In: settings. Out: the broker's address on standard output; an error if the broker ends by itself.
"""

import time
from typing import Final

import typer

from cli.errors import ProgramEndedError
from cli.kafka import EmbeddedKafka
from cli.local import kafka_cache, sigterm_as_interrupt
from cli.programs import describe_exit
from cli.settings import BrokerSettings

_POLL_S: Final = 0.2


def run_broker(settings: BrokerSettings) -> None:
    """Run a broker until an interrupt; returns once it is stopped."""
    folder = settings.data_dir / "kafka"
    broker = EmbeddedKafka(folder, cache=kafka_cache(settings), port=settings.kafka_port)
    with sigterm_as_interrupt():
        try:
            with broker:
                typer.echo(f"Kafka serves {broker.bootstrap}; data in {folder.absolute()}")
                typer.echo("Ctrl-C stops it.")
                _watch(broker)
        except KeyboardInterrupt:
            typer.echo("stopped")


def _watch(broker: EmbeddedKafka) -> None:
    while (code := broker.poll()) is None:
        time.sleep(_POLL_S)
    raise ProgramEndedError(f"Kafka {describe_exit(code)}; its log is {broker.log_file}")
