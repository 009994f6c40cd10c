"""Provides the shared parts of the benchmark commands: options, a temporary Kafka, exit codes."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from bench.stage import BenchError
from cli.errors import CommandError
from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import EmbeddedKafkaError
from cli.run.local import kafka_cache, sigterm_as_interrupt
from cli.settings import DemoSettings

# Tables have this width if standard output is not a terminal.
_FILE_WIDTH: Final = 120


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for a module's command; the description keeps its line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def count(text: str) -> int:
    """Parse an option whose value is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return int(text)


def exit_code_of(measure: Callable[[Console], bool]) -> int:
    """Measure; return 0 for a good result, 1 for a bad result, 2 for a failure, 130 if stopped."""
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    try:
        with sigterm_as_interrupt():
            return 0 if measure(console) else 1
    except KeyboardInterrupt:
        return 130
    except (BenchError, CommandError, EmbeddedKafkaError, KafkaError) as error:
        print(error, file=sys.stderr)
        return 2


# A broker in production runs for long, so its hot methods are compiled by the second compiler.
_COMPILE_FULLY: Final = ("-XX:TieredStopAtLevel=4",)


@contextmanager
def kafka_in_a_folder(
    properties: Mapping[str, str] | None = None,
) -> Iterator[tuple[EmbeddedKafka, Path]]:
    """Run Kafka in a temporary folder, which is deleted afterwards; yield Kafka and the folder."""
    cache = kafka_cache(DemoSettings.from_environment(os.environ))
    with (
        tempfile.TemporaryDirectory(prefix="plexy-bench-") as folder,
        EmbeddedKafka(
            Path(folder) / "kafka", cache=cache, properties=properties, jvm=_COMPILE_FULLY
        ) as kafka,
    ):
        yield kafka, Path(folder)


def progress_bars(*more: ProgressColumn) -> Progress:
    """Return progress bars for a long measurement; the bars are printed to standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        *more,
        console=Console(stderr=True),
    )
