"""`python -m bench`: fold the same recorded input with each peer, side by side, in one run.

In: the options below. Out: a table, and ``build/bench.json``. Exit code 1 if a peer's result
differs from the ledger's, 2 if a measurement failed. It runs on a Kafka of its own, in a temporary
folder.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import report
from bench.fold import Measurement, measure
from bench.peers import PEERS
from bench.profile import summarise
from bench.program import Program
from bench.recording import Delivery, record
from bench.stage import BenchError, Place
from cli.kafka import EmbeddedKafka
from cli.kafka_distribution import EmbeddedKafkaError
from cli.local import kafka_cache
from cli.settings import DemoSettings

Round = Sequence[type[Program]]


def main() -> int:
    """Measure, show, write; return the exit code."""
    options = _options()
    console = Console()
    try:
        measurements = _measure_all(options)
    except (BenchError, EmbeddedKafkaError) as error:
        print(error, file=sys.stderr)
        return 2
    report.show(console, measurements)
    report.write_json(options.out, measurements)
    if options.profile:
        for name, share in summarise(options.profile):
            console.print(f"{share:6.1%}  {name}", highlight=False)
    return 1 if any(run.differences for run in measurements) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--events", type=_count, default=200_000, help="deliveries to fold")
    parser.add_argument("--repeat", type=_count, default=1, help="rounds, in alternating order")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, help="whom to measure")
    parser.add_argument("--seed", type=int, default=1, help="of the recorded input")
    parser.add_argument("--profile", metavar="FILE", help="write our worker's stacks, by py-spy")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="the result")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return number


def _measure_all(options: argparse.Namespace) -> list[Measurement]:
    deliveries = record(options.events, options.seed)
    cache = kafka_cache(DemoSettings.from_environment(os.environ))
    measurements = []
    with (
        tempfile.TemporaryDirectory(prefix="plexy-bench-") as folder,
        EmbeddedKafka(Path(folder) / "kafka", cache=cache) as kafka,
        _progress() as progress,
    ):
        for number, peer in enumerate(_schedule(options)):
            place = Place(
                bootstrap=kafka.bootstrap,
                name=f"bench-{number}-{peer.name}",
                folder=Path(folder) / f"{number}-{peer.name}",
            )
            measurements.append(_measure_one(peer, place, deliveries, progress, options))
    return measurements


def _schedule(options: argparse.Namespace) -> Iterator[type[Program]]:
    """Yield the peers of each round, every other round backwards."""
    chosen = [peer for peer in PEERS if peer.name in options.peers]
    for number in range(options.repeat):
        yield from reversed(chosen) if number % 2 else chosen


def _measure_one(
    peer: type[Program],
    place: Place,
    deliveries: Sequence[Delivery],
    progress: Progress,
    options: argparse.Namespace,
) -> Measurement:
    bar = progress.add_task(f"{peer.title}, {len(deliveries):,} events", total=1.0, result="")
    profile = options.profile if peer.name == "ours" else None

    def advance(share: float) -> None:
        progress.update(bar, completed=share)

    run = asyncio.run(measure(peer, place, deliveries, advance, profile))
    progress.update(bar, completed=1.0, result=f"{run.rate:,.0f} events/s")
    return run


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[result]}"),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    sys.exit(main())
