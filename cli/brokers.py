"""Runs the embedded Kafka in the foreground until Ctrl-C or SIGTERM: the command ``kafka``.

If there is one broker, the command fails when the broker ends by itself. If there are three
brokers, the command restarts a broker that ends, even if that broker's disk was emptied.
"""

import time
from typing import Final

import typer

from cli.errors import ProgramEndedError, WrongOptionError
from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import SIZE, KafkaCluster, plain_broker
from cli.run.local import kafka_cache, sigterm_as_interrupt
from cli.run.programs import describe_exit
from cli.settings import BrokerSettings

_POLL_S: Final = 0.2
# A user who kills a broker has this much time to empty the broker's disk before the restart.
_AWAY_S: Final = 5.0


def run_broker(settings: BrokerSettings, brokers: int = 1) -> None:
    """Run one broker or three brokers until an interrupt; return after all brokers have stopped."""
    if brokers not in {1, SIZE}:
        raise WrongOptionError(f"--brokers: expected 1 or {SIZE}, got {brokers}")
    with sigterm_as_interrupt():
        try:
            _run_one(settings) if brokers == 1 else _run_cluster(settings)
        except KeyboardInterrupt:
            typer.echo("stopped")


def _run_one(settings: BrokerSettings) -> None:
    folder = settings.data_dir / "kafka"
    with EmbeddedKafka(folder, cache=kafka_cache(settings), port=settings.kafka_port) as broker:
        typer.echo(f"Kafka serves {broker.bootstrap}; data in {folder.absolute()}")
        typer.echo("Ctrl-C stops it.")
        while (code := broker.poll()) is None:
            time.sleep(_POLL_S)
        raise ProgramEndedError(f"Kafka {describe_exit(code)}; its log is {broker.log_file}")


def _run_cluster(settings: BrokerSettings) -> None:
    folder = settings.data_dir / "kafka-cluster"
    make = plain_broker(kafka_cache(settings), settings.kafka_port)
    with KafkaCluster(folder, make) as cluster:
        typer.echo(f"Kafka serves {cluster.bootstrap}; data in {folder.absolute()}")
        for broker in cluster.brokers:
            typer.echo(f"  {broker.folder.name} {broker.bootstrap} pid {broker.pid}")
        typer.echo(
            f"The other commands need LEDGER_KAFKA_BOOTSTRAP={cluster.bootstrap} "
            f"LEDGER_REPLICATION_FACTOR={SIZE} LEDGER_MIN_INSYNC_REPLICAS={SIZE - 1}"
        )
        typer.echo("Ctrl-C stops it.")
        while True:
            time.sleep(_POLL_S)
            for broker in cluster.brokers:
                if (code := broker.poll()) is not None:
                    _start_again(cluster, broker, code)


def _start_again(cluster: KafkaCluster, broker: EmbeddedKafka, code: int) -> None:
    name = broker.folder.name
    typer.echo(f"{name} {describe_exit(code)}; restarting it in {_AWAY_S:.0f} s")
    time.sleep(_AWAY_S)
    cluster.start_again(broker)
    typer.echo(
        f"{name} is running again, pid {broker.pid}; it fetches its records from the other brokers"
    )
