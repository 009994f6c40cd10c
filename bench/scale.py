"""`python -m bench.scale`, or `make bench-scale`: measure a worker as its state grows.

At each number of orders, the benchmark measures the rate of the fold, the worker's memory and the
size of the worker's databases. It also measures the time until a restarted worker is ready, in two
cases: the worker's tables are in place, or the tables were deleted and the worker must restore them
from the changelogs. Then the benchmark measures how fast one, two and four workers fold the same
log. It prints the results as tables, and writes them to ``build/bench-scale.json``. The benchmark
starts its own Kafka in a temporary folder. The exit code is 1 if a restart with the tables in place
took longer than 5 s or if a result is wrong. It is 2 if a measurement failed.

    python -m bench.scale
    python -m bench.scale --orders 10000 100000 --workers
    python -m bench.scale --orders --workers 1 2 4 --partitions 8 --events 200000
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from bench.command import count, exit_code_of, kafka_in_a_folder, parser_of, progress_bars
from bench.growth import DELIVERIES_PER_ORDER, Growth, Size
from bench.recording import record
from bench.scale_report import Result, counted, show, write_json
from bench.stage import BROKER, PARTITIONS, Setup, open_stage
from bench.together import fold_together

_SIZES: Final = (10_000, 100_000, 1_000_000, 3_000_000)
_WORKERS: Final = (1, 2, 4)

# With these figures, the benchmark estimates how long it will take, and how much disk space it will
# need. They were measured on a machine with two cores, which also ran the broker and generated the
# input.
_GROWN_PER_S: Final = 8_000
_RESTORED_PER_S: Final = 200_000
_RECORDS_PER_ORDER: Final = 3.6
_BYTES_PER_ORDER: Final = 3_700
_ONE_START_S: Final = 4.0
_ONE_FLEET_S: Final = 20.0


def main() -> int:
    """Measure, show and write the results; return the exit code."""
    options = _options()
    return exit_code_of(partial(_run, options))


def _run(options: argparse.Namespace, console: Console) -> bool:
    print(
        f"This takes about {_minutes(options)} minutes, and {_gigabytes(options):.0f} GB in "
        f"{tempfile.gettempdir()}.",
        file=sys.stderr,
    )
    with kafka_in_a_folder(BROKER) as (kafka, folder), progress_bars() as progress:
        result = asyncio.run(_measure(kafka.bootstrap, folder, options, progress))
    show(console, result)
    write_json(options.out, result)
    return result.is_good


def _options() -> argparse.Namespace:
    parser = parser_of("bench.scale", __doc__)
    add = parser.add_argument
    add("--orders", nargs="*", type=count, default=_SIZES, help="orders (default 10k 100k 1M 3M)")
    add("--workers", nargs="*", type=count, default=_WORKERS, help="workers (default 1 2 4)")
    add("--burst", type=count, default=20_000, help="events in a burst (default 20000)")
    add("--bursts", type=count, default=5, help="bursts at each size (default 5)")
    add("--events", type=count, default=100_000, help="events for the workers (default 100000)")
    add("--partitions", type=count, default=PARTITIONS, help="partitions per topic (default 4)")
    add("--repeat", type=count, default=1, help="restarts of each kind at each size (default 1)")
    add("--seed", type=int, default=1, help="seed of the recorded input")
    add("--out", type=Path, default=Path("build/bench-scale.json"), help="the file for the results")
    options = parser.parse_args()
    options.orders = sorted(options.orders)
    return options


def _minutes(options: argparse.Namespace) -> int:
    orders: int = max(options.orders, default=0)
    grown_s = orders * DELIVERIES_PER_ORDER / _GROWN_PER_S
    restored_s = sum(options.orders) * _RECORDS_PER_ORDER / _RESTORED_PER_S
    starts_s = len(options.orders) * (2 * options.repeat + 1) * _ONE_START_S
    bursts_s = len(options.orders) * options.bursts * options.burst / _GROWN_PER_S
    seconds = grown_s + restored_s + starts_s + bursts_s + len(options.workers) * _ONE_FLEET_S
    return max(int(seconds / 60), 1)


def _gigabytes(options: argparse.Namespace) -> float:
    """Return the gigabytes that Kafka and the tables need at the largest size, but at least 1."""
    orders: int = max(options.orders, default=0)
    return max(orders * _BYTES_PER_ORDER / 1e9, 1.0)


async def _measure(
    bootstrap: str, folder: Path, options: argparse.Namespace, progress: Progress
) -> Result:
    def place(name: str) -> Setup:
        return Setup(
            bootstrap=bootstrap, name=name, folder=folder / name, partitions=options.partitions
        )

    sizes = []
    if options.orders:
        async with open_stage(place("growth")) as stage:
            growth = Growth(stage, folder / "kafka", options.seed)
            sizes = await _grow(growth, options, progress)
    fleets = []
    deliveries = record(options.events, options.seed) if options.workers else []
    for workers in options.workers:
        with _bar(progress, counted(workers)) as bar:
            async with open_stage(place(f"workers-{workers}")) as stage:
                fleets.append(
                    await fold_together(
                        stage, workers, deliveries, partial(bar.show, "measuring the fold")
                    )
                )
            bar.result = f"{fleets[-1].rate:,.0f} events/s"
    return Result(options.partitions, sizes, fleets)


async def _grow(growth: Growth, options: argparse.Namespace, progress: Progress) -> list[Size]:
    sizes: list[Size] = []
    async with growth.running():
        for orders in options.orders:
            with _bar(progress, f"{orders:,} orders") as bar:
                size = await growth.look(
                    orders,
                    burst=options.burst,
                    bursts=options.bursts,
                    repeat=options.repeat,
                    report=bar.show,
                )
                bar.result = f"{size.rate:,.0f} events/s"
            sizes.append(size)
    return sizes


class _Bar:
    """One progress bar: it shows a measurement's title, and its current step or its result."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=1.0)
        self.result = ""

    def show(self, doing: str, share: float) -> None:
        self._progress.update(
            self._task, description=f"{self._title}: {doing}", completed=min(share, 0.99)
        )

    def end(self) -> None:
        self._progress.update(
            self._task, description=f"{self._title}: {self.result}", completed=1.0
        )


@contextmanager
def _bar(progress: Progress, title: str) -> Iterator[_Bar]:
    bar = _Bar(progress, title)
    yield bar
    bar.end()


if __name__ == "__main__":
    sys.exit(main())
