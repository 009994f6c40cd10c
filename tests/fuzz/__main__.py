"""Runs `make fuzz`, or `python -m tests.fuzz --count 100000 --seconds 30 --seed 7`.

The program starts the embedded Kafka and an ingress, sends hostile requests drawn from the seed,
carries out every attack, and prints its measurements. At the first undocumented answer, the
program ends with exit code 1.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache, default_cache_folder
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.fuzz.answers import UndocumentedError
from tests.fuzz.campaign import Figures, attack_in_every_way, send_inputs
from tests.fuzz.inputs import PAY_TOKEN
from tests.fuzz.target import running
from tests.ingest.conftest import SECRET
from tests.kafka.harness import environment, free_port

# This limit is shorter than the default. Ingress refuses a slow body after 60 % of this time.
ANSWER_WITHIN_S = 5


def main() -> int:
    """Run the campaign; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="hostile requests to send")
    parser.add_argument("--seconds", type=float, default=20, help="how long each attack lasts")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the inputs")
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}: --seed {options.seed} sends the same requests again")
    cache = KafkaCache(folder=default_cache_folder(os.environ))
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedKafka(Path(folder) / "kafka", cache=cache) as broker,
    ):
        try:
            asyncio.run(campaign(broker.bootstrap, Path(folder), options, console))
        except UndocumentedError as error:
            console.print(str(error), markup=False)
            return 1
    return 0


async def campaign(
    bootstrap: str, folder: Path, options: argparse.Namespace, console: Console
) -> None:
    """Send the inputs, carry out the attacks, and print a table of the figures."""
    port = free_port()
    env = environment(
        bootstrap,
        folder,
        webhook_secrets=SECRET,
        pay_tokens=PAY_TOKEN,
        pay_amounts="major",
        ingest_port=port,
        answer_within_s=ANSWER_WITHIN_S,
    )
    await ensure_topics(TopicSettings.from_environment(env))
    table = Table("attack", "inputs", "s", "highest MB", "honest", "refused", "median ms", "p99 ms")

    def tell(figures: Figures) -> None:
        table.add_row(*row(figures))
        console.print(" | ".join(row(figures)), markup=False)

    async with running(env, folder / "ingress.log") as target:
        console.print(f"before: {target.memory_mb()} MB, {target.open_sockets()} files open")
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("requests", total=options.count)
            figures, outcomes = await send_inputs(
                target, options.count, options.seed, lambda n: progress.advance(task, n)
            )
        tell(figures)
        for outcome, count in sorted(outcomes.items()):
            console.print(f"  {count:7} {outcome}", markup=False)
        await attack_in_every_way(target, options.seconds, tell)
        await asyncio.sleep(2)
        console.print(f"after: {target.memory_mb()} MB, {target.open_sockets()} files open")
    console.print(table)


def row(figures: Figures) -> list[str]:
    """Return a table's row."""
    refused = ", ".join(f"{count} {why}" for why, count in figures.refused.items()) or "0"
    numbers = (figures.median_ms, figures.p99_ms)
    return [
        figures.name,
        f"{figures.inputs:,}",
        f"{figures.seconds:.0f}",
        f"{figures.memory_mb}",
        f"{figures.honest}",
        refused,
        *(f"{number:.1f}" for number in numbers),
    ]


if __name__ == "__main__":
    sys.exit(main())
