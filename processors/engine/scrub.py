"""Scrubbing: reads a worker's tables from disk, and compares them with their digests.

Input: the tables. Output: for each partition, the digest of its rows on disk at a changelog offset.
From a partition's first scrub on, every write of the fold updates the partition's digest. If the
rows on disk do not match the digest, a wrong value may be served and folded, so the worker ends at
once. ``discard`` deletes the partition's files, and notes the damage for `audit`. The next start
restores the partition from the changelog.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from functools import cached_property, reduce
from pathlib import Path
from typing import Final, cast

import msgspec
import structlog

from ledger.digest import Damage, Digest, digest_of
from ledger.topics import TableName
from processors.engine.app import EngineApp
from processors.engine.chunk import RevokedError
from processors.engine.databases import DamagedTableError
from processors.engine.tables import ChunkTable, TableSnapshot

# A round reads all tables once, and starts at least this often. It takes one second of CPU per
# million rows.
_EVERY_S: Final = 600.0
# A scrub needs 1 to 2 ms to read a thousand rows, and pauses after each thousand. While chunks are
# being folded, the pauses are longer, so that scrubbing takes only 2 % of the time.
_PAUSE_S: Final = 0.008
_PAUSE_BUSY_S: Final = 0.1
# One step of the event loop reads this many rows for a digest, in about a millisecond.
_READ_AT_ONCE: Final = 1000
_MIB: Final = 1024 * 1024
_MOST_DAMAGES: Final = 20

log = structlog.get_logger(__name__)


class DiskReading(msgspec.Struct, frozen=True):
    """The digest of all rows that were on disk at changelog offset ``end``."""

    end: int
    digest: Digest
    at_ms: int


class Scrubber:
    """Reads the partitions of some tables in rounds, one partition after another."""

    def __init__(self, app: EngineApp, tables: Iterable[ChunkTable], folder: Path) -> None:
        self._app = app
        self._tables = list(tables)
        self._file = folder / "damages.json"
        self._wanted = asyncio.Event()
        self._readings: dict[tuple[str, int], DiskReading] = {}

    @cached_property
    def _damages(self) -> list[Damage]:
        return _noted(self._file)

    def want(self) -> None:
        """Ask for a round to begin now, or right after the current round."""
        self._wanted.set()

    def reading(self, table: str, partition: int) -> DiskReading | None:
        """Return the last complete reading of a partition; ``None`` if there is none yet."""
        return self._readings.get((table, partition))

    def damages(self) -> list[Damage]:
        """Return the damage found in this worker's folder, newest last."""
        return list(self._damages)

    async def keep(self) -> None:
        """Read all tables in rounds, until the app stops."""
        # This call reads the file of damages. So if the file is unreadable, that is logged when the
        # worker starts, and not later, when the file is needed.
        self.damages()
        while not self._app.should_stop:
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await self.round()

    async def round(self) -> None:
        """Read each open partition once; forget the readings of partitions that are not open."""
        held = {(str(table.name), number) for table in self._tables for number in table.held}
        self._readings = {place: each for place, each in self._readings.items() if place in held}
        for table in self._tables:
            for partition in sorted(table.held):
                try:
                    await self._scrub(table, partition)
                except RevokedError:
                    # A rebalance has taken the partition away.
                    return

    async def _scrub(self, table: ChunkTable, partition: int) -> None:
        """Compare the rows with their digest; raise ``RevokedError`` if a rebalance begins."""
        app = self._app
        generation = app.consumer_generation_id
        if app.rebalancing or partition not in table.held:
            raise RevokedError(f"{table.name}[{partition}]")
        snapshot = table.snapshot(partition)
        found = Digest()
        for part in _digests(snapshot.rows):
            found = found.plus(part)
            await asyncio.sleep(_PAUSE_BUSY_S if app.consumer.at_work else _PAUSE_S)
            # The iterator keeps the database open, so the scrub stops as soon as the database may
            # have to be closed.
            gone = app.rebalancing or app.should_stop
            if gone or generation != app.consumer_generation_id:
                raise RevokedError(f"{table.name}[{partition}]")
        _require(table, partition, snapshot, found)
        table.learn(partition, snapshot, found)
        self._readings[str(table.name), partition] = DiskReading(snapshot.end, found, _now_ms())

    def search(self) -> Iterator[DamagedTableError]:
        """Read all rows without a pause, and yield an error for each damaged partition.

        A worker that ends because of an error searches its tables first. If a damaged row caused
        the error and stayed on disk, it would end the worker again after each start.
        """
        for table in self._tables:
            for partition in sorted(table.held):
                try:
                    snapshot = table.snapshot(partition)
                    _require(
                        table,
                        partition,
                        snapshot,
                        reduce(Digest.plus, _digests(snapshot.rows), Digest()),
                    )
                except DamagedTableError as damaged:
                    yield damaged

    def discard(self, damaged: DamagedTableError) -> None:
        """Delete a damaged partition's files, and note the damage."""
        damage = Damage(
            table=cast("TableName", damaged.table.name),
            partition=damaged.partition,
            found_at_ms=_now_ms(),
            detail=damaged.detail,
        )
        damaged.table.drop(damaged.partition)
        self._damages = [*self._damages, damage][-_MOST_DAMAGES:]
        new = self._file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self._damages))
        new.replace(self._file)


def _noted(file: Path) -> list[Damage]:
    """Return the damage noted in a file, which a different release may have written."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Damage])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        log.warning(
            "former damages not read",
            file=str(file),
            reason=str(error),
            remedy="look at the file, and delete it: it does not describe the current tables",
        )
        return []


def _require(table: ChunkTable, partition: int, snapshot: TableSnapshot, found: Digest) -> None:
    """Raise ``DamagedTableError`` unless the rows on disk are the rows that were written."""
    expected = snapshot.digest
    if expected is not None and found != expected:
        raise DamagedTableError(
            table,
            partition,
            f"it holds {found.rows} rows with digest {found}, and {expected.rows} rows with "
            f"digest {expected} were written below changelog offset {snapshot.end}",
        )


def _digests(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[Digest]:
    """Yield digests, each of a thousand rows, or of about a mebibyte of rows."""
    part: dict[bytes, bytes] = {}
    size = 0
    for key, value in rows:
        part[key] = value
        size += len(value)
        if len(part) == _READ_AT_ONCE or size >= _MIB:
            yield digest_of(part)
            part, size = {}, 0
    if part:
        yield digest_of(part)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
