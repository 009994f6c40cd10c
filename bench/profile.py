"""Profiles a worker or ingress: py-spy samples the stacks of the process during a measurement.

Each line of py-spy's file has one stack, outermost frame first, and the number of its samples. Only
a thread that holds the interpreter's lock is sampled, so the time spent waiting for Kafka does not
count. A profiled run is slower, so its rate must not be compared with the rates of other runs.
"""

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.stage import BenchError

_SAMPLES_PER_S: Final = "100"
_WRITTEN_WITHIN_S: Final = 60.0

# Each kind of work has a pattern, which is searched in the frames of a sample, innermost frame
# first. The sample counts for the first kind that matches. So the time in C code counts for the
# Python function that called the C code.
_KINDS: Final = (
    ("the ledger's rules", re.compile(r"\bledger/")),
    ("hash keys to partitions", re.compile(r"partition_for")),
    ("read records out of fetches", re.compile(r"aiokafka/(consumer|record)/")),
    (
        "build record batches",
        re.compile(r"aiokafka/producer/|kafka/batches\.py|Effects\.keep"),
    ),
    ("read and write RocksDB", re.compile(r"processors/engine/(databases|tables)\.py")),
    ("decode and encode values", re.compile(r"processors/(dedupe|payments|orders)\.py")),
    ("free the objects of a chunk", re.compile(r"fold_and_write")),
    # uvloop has no frames of its own, so uvloop's time counts for its caller.
    ("event loop, sockets", re.compile(r"asyncio/|aiokafka/|mode/(worker|threads)\.py")),
    ("Faust, commits", re.compile(r"(faust|mode)/|processors/")),
)


@asynccontextmanager
async def profiled(pid: int, path: str | None) -> AsyncIterator[None]:
    """Record a process's stacks during the ``with`` block; do nothing if ``path`` is ``None``."""
    if path is None:
        yield
        return
    command = _command(pid, Path(path))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), _WRITTEN_WITHIN_S)
    _require_written(Path(path))


def _command(pid: int, path: Path) -> list[str]:
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise BenchError("--profile needs py-spy: install it into this environment")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    options = ["--gil", "--nonblocking", "-f", "raw", "-r", _SAMPLES_PER_S]
    return [spy, "record", *options, "-o", str(path), "-p", str(pid)]


def _require_written(path: Path) -> None:
    if not path.is_file():
        raise BenchError(f"py-spy wrote no {path}: check that py-spy may read our processes")


def summarise(path: str, functions: int = 12) -> Iterator[tuple[str, float]]:
    """Yield each kind of work, then the most frequent functions, with their shares of samples."""
    samples = list(_samples(Path(path).read_text().splitlines()))
    total = sum(count for _, count in samples)
    kinds: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for frames, count in samples:
        kinds[_kind(frames)] += count
        own[_without_line(frames[-1])] += count
    for name, count in [*kinds.most_common(), *own.most_common(functions)]:
        yield name, count / total


def _samples(lines: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    for line in lines:
        stack, _, count = line.rpartition(" ")
        yield stack.split(";"), int(count)


def _kind(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in _KINDS:
            if pattern.search(frame):
                return name
    return "other"


def _without_line(frame: str) -> str:
    return re.sub(r":\d+\)$", ")", frame)
