"""Where a worker's time goes: py-spy beside it while it folds, and a summary of what it saw.

In: a process id, a file for the stacks (a line each: frames from the root, then how many samples).
Out: shares of the samples. A profiled run is slower: its rate is not to be compared.
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

# A sample is charged to the first of these that its stack meets, from the innermost frame out: what
# C code takes is charged to the Python function that called it.
_LAYERS: Final = (
    ("aiokafka", re.compile(r"aiokafka/")),
    ("Faust and mode", re.compile(r"(faust|mode)/")),
    ("ledger", re.compile(r"\bledger/")),
    ("processors", re.compile(r"\bprocessors/")),
    ("asyncio", re.compile(r"asyncio/|selectors")),
)


@asynccontextmanager
async def profiled(pid: int, path: str | None) -> AsyncIterator[None]:
    """Record the stacks of one process while the block runs; nothing if there is no path."""
    if path is None:
        yield
        return
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise BenchError("--profile needs py-spy: install it into this environment")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    command = [spy, "record", "--nonblocking", "-f", "raw", "-r", _SAMPLES_PER_S]
    command += ["-o", path, "-p", str(pid)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), _WRITTEN_WITHIN_S)


def summarise(path: str, functions: int = 15) -> Iterator[tuple[str, float]]:
    """Yield what took the time and its share of the samples: layers first, then functions."""
    samples = list(_samples(Path(path).read_text().splitlines()))
    total = sum(count for _, count in samples)
    layers: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for frames, count in samples:
        layers[_layer(frames)] += count
        own[_without_line(frames[-1])] += count
    for name, count in [*layers.most_common(), *own.most_common(functions)]:
        yield name, count / total


def _samples(lines: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    for line in lines:
        stack, _, count = line.rpartition(" ")
        yield stack.split(";"), int(count)


def _layer(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, pattern in _LAYERS:
            if pattern.search(frame):
                return name
    return "other"


def _without_line(frame: str) -> str:
    return re.sub(r":\d+\)$", ")", frame)
