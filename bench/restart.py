"""`python -m bench.restart`: how soon a worker with its data in place is ready again.

In: how many orders. Out: a table: each restart, after SIGTERM and after SIGKILL, in seconds from
the start of the process to `/readyz` 200; the databases' size; the worker's memory. Exit code 1 if
one took longer than 5 s, 2 if a measurement failed. It runs on a Kafka of its own, in a temporary
folder.

    python -m bench.restart --orders 100000
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.peers.ours import Ours
from bench.recording import record_orders
from bench.stage import BenchError, Place, Stage, open_stage
from cli.kafka import EmbeddedKafka
from cli.kafka_distribution import EmbeddedKafkaError
from cli.local import kafka_cache, sigterm_as_interrupt
from cli.settings import DemoSettings

# At a million orders.
_READY_WITHIN_S: Final = 5.0
_ORDERS_AT_ONCE: Final = 10_000
_MB: Final = 1e6


class Restart(NamedTuple):
    """One restart: after what, ready after so long, with how much work, and the memory then."""

    after: str
    seconds: float
    cpu_s: float
    memory_bytes: int


def main() -> int:
    """Measure and show; return the exit code."""
    options = _options()
    console = Console()
    cache = kafka_cache(DemoSettings.from_environment(os.environ))
    try:
        with (
            sigterm_as_interrupt(),
            tempfile.TemporaryDirectory(prefix="plexy-restart-") as folder,
            EmbeddedKafka(Path(folder) / "kafka", cache=cache) as kafka,
        ):
            place = Place(bootstrap=kafka.bootstrap, name="restart", folder=Path(folder) / "worker")
            restarts, size = asyncio.run(_measure(place, options))
    except KeyboardInterrupt:
        return 130
    except (BenchError, EmbeddedKafkaError) as error:
        print(error, file=sys.stderr)
        return 2
    _show(console, restarts, f"{options.orders:,} orders, databases of {size / _MB:,.0f} MB")
    return 1 if max(each.seconds for each in restarts) > _READY_WITHIN_S else 0


def _options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.restart", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--orders", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument("--repeat", type=int, default=3, help="restarts of each kind, default 3")
    parser.add_argument("--seed", type=int, default=1, help="of the recorded input")
    return parser.parse_args()


async def _measure(place: Place, options: argparse.Namespace) -> tuple[list[Restart], int]:
    """Load, fold, restart; return the restarts, and the databases' size in bytes."""
    async with open_stage(place) as stage:
        worker = Ours(stage)
        with _progress() as progress:
            await _load(stage, options.orders, options.seed, progress)
            bar = progress.add_task("folding", total=1.0)
            try:
                await worker.start()
                await worker.wait(lambda share: progress.update(bar, completed=share))
                progress.update(bar, completed=1.0)
                restarts = [each async for each in _restarts(worker, options.repeat, progress)]
            finally:
                await worker.stop()
    return restarts, _size(place.folder / "data")


async def _load(stage: Stage, orders: int, seed: int, progress: Progress) -> None:
    bar = progress.add_task(f"delivering {orders:,} orders", total=orders)
    for first in range(0, orders, _ORDERS_AT_ONCE):
        some = range(first, min(first + _ORDERS_AT_ONCE, orders))
        await stage.load(record_orders(some, seed))
        progress.advance(bar, len(some))


async def _restarts(worker: Ours, repeat: int, progress: Progress) -> AsyncIterator[Restart]:
    bar = progress.add_task("restarting", total=2 * repeat)
    for _ in range(repeat):
        for after, end in (("SIGTERM", worker.stop), ("SIGKILL", worker.kill)):
            await end()
            began_s = time.time()
            ready_s = await worker.start()
            yield Restart(after, ready_s - began_s, worker.cpu_s(), worker.memory_bytes())
            progress.advance(bar)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _show(console: Console, restarts: Sequence[Restart], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("after")
    for heading in ("seconds until ready", "seconds of a processor", "memory, MB"):
        table.add_column(heading, justify="right")
    for each in sorted(restarts, key=lambda restart: restart.after):
        times = (f"{each.seconds:.2f}", f"{each.cpu_s:.2f}")
        table.add_row(each.after, *times, f"{each.memory_bytes / _MB:,.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
