"""Fakes that keep the contract of the real objects, and fail when a test wants them to fail."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from faust.types import TP

from ingest.appends import LogUnavailableError
from ingest.records import NewRecord
from ledger.records import Place
from processors.engine.chunk import Chunk, FetchedRecord
from processors.engine.offsets import ChunkOffsets


class FakeLog:
    """An append-only log in memory, which implements ``ingest.log.Log``.

    While ``reason`` is set, the log is unavailable. While ``acknowledging`` is cleared, the log
    accepts records but acknowledges none. ``asked`` counts the calls of ``trouble``, and
    ``topic_faults`` is the number of topic faults that the log reports.
    """

    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.reason: str | None = None
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()
        self.waiting = 0
        self.asked = 0
        self.topic_faults = 0
        self.running = False

    async def append(self, record: NewRecord, until: float) -> Place:
        """Keep the record, and wait until it is acknowledged or the deadline has passed."""
        if self.reason is not None:
            raise LogUnavailableError(self.reason)
        self.records.append(record)
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await self.acknowledging.wait()
        except TimeoutError:
            raise LogUnavailableError("the fake did not acknowledge in time") from None
        finally:
            self.waiting -= 1
        return Place(0, len(self.records) - 1)

    async def trouble(self) -> str | None:
        """Return why the log is unavailable, or None if it is available."""
        self.asked += 1
        return self.reason

    async def start(self) -> None:
        """Record that the log was started."""
        self.running = True

    async def close(self) -> None:
        """Record that the log was closed."""
        self.running = False


async def until(condition, within_s: float = 40.0) -> None:
    """Wait until ``condition()`` is true; fail after ``within_s``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - a condition may have no event
                await asyncio.sleep(0.01)
    assert condition(), f"the condition did not hold within {within_s} s"


class FakeConsumer:
    """Replaces the consumer that a ``Chunk`` needs, and works without Kafka."""

    def __init__(self) -> None:
        # The real consumer asks its app for the generation; here, the consumer is its own app.
        self.app = self
        self.consumer_generation_id = 1
        self.offsets = ChunkOffsets()
        self.at_work: set[asyncio.Task | None] = set()
        self.gives_back = False
        self.given_back = 0

    def chunk(self, partition: int, *offsets: int) -> Chunk:
        """Return a chunk of one partition's records, in the form that a fetch returns."""
        tp = TP("topic", partition)
        chunk = Chunk(self, tp, [a_record(tp, offset) for offset in offsets])
        self.offsets.delivered(tp, chunk.next_offset)
        return chunk

    async def is_member(self, generation: int) -> bool:
        """Return whether the generation is current; the real consumer asks its group."""
        return generation == self.consumer_generation_id

    def rebalance(self) -> None:
        """Give up every partition."""
        self.consumer_generation_id += 1
        self.given_back += 1
        self.offsets.forget()


def a_record(tp: TP, offset: int) -> FetchedRecord:
    """Return a record in the form that the transport delivers."""
    key = value = b"%d" % offset
    return FetchedRecord(key, value, tp.partition, offset, 0)


CLAIM = """
import sys
from pathlib import Path
from processors.engine.identity import claim
print(claim(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def claimed_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Start a process that claims a folder, as a worker does, until the process ends."""
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
