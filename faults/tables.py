"""Compares the tables on the disks of ended workers with their changelogs, key by key.

Each database stores the changelog offset up to which it has applied all records, so the folder of a
worker that left long ago is compared with the changelog up to that offset. The changelogs of a run
are too small to be compacted, so they still contain every value of each key.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import AccessType, Options, Rdict

from cli.topics.ledger_reader import LedgerReader, open_reader
from ledger.digest import RESERVED, digest_of
from ledger.topics import TABLES, TableName
from processors.engine.tables import DIGEST_KEY, OFFSET_KEY, stored_digest
from runtime.kafka.topics import TopicSettings

_MOST_NAMED: Final = 5


class Database(msgspec.Struct):
    """One partition of a table in one worker's folder.

    Its rows reflect the changelog up to the offset before ``end``.
    """

    path: Path
    end: int
    rows: dict[bytes, bytes]
    is_digest_right: bool


async def disk_differences(settings: TopicSettings, folders: Mapping[str, Path]) -> list[str]:
    """Return every difference between a worker's rows on disk and their changelog."""
    differences: list[str] = []
    async with open_reader(settings) as reader:
        for table in TABLES:
            for partition in range(settings.partitions):
                databases = {
                    label: found
                    for label, folder in folders.items()
                    if (found := _read(folder, table, partition)) is not None
                }
                if folders and not databases:
                    differences.append(f"no worker has partition {partition} of {table} on disk")
                differences += await _compare(reader, table, partition, databases)
    return differences


def _read(folder: Path, table: TableName, partition: int) -> Database | None:
    """Return a partition's database; ``None`` if the folder's worker never had the partition."""
    found = [
        path
        for path in (folder / "tables").rglob(f"{table}-{partition}.db")
        if not _is_unfinished(path)
    ]
    if not found:
        return None
    (path,) = found
    with opened(path, read_only=True) as db:
        rows = rows_of(db)
        offset = db.get(OFFSET_KEY)
        end = 0 if offset is None else int(offset) + 1
        digest = stored_digest(db.get(DIGEST_KEY), end)
    return Database(path, end, rows, digest is None or digest == digest_of(rows))


def _is_unfinished(path: Path) -> bool:
    """Return whether the worker ended while RocksDB created the database, before the first row."""
    rows = (*path.glob("*.sst"), *path.glob("*.log"))
    return not (path / "CURRENT").exists() and not any(file.stat().st_size for file in rows)


def opened(path: Path, *, read_only: bool = False) -> closing[Rdict]:
    """Return a context in which the database of a partition is open."""
    # A killed worker leaves a write-ahead log, which must be read too.
    reading = AccessType.read_only(error_if_log_file_exist=False)
    access = reading if read_only else AccessType.read_write()
    return closing(Rdict(str(path), Options(raw_mode=True), access_type=access))


def rows_of(db: Rdict) -> dict[bytes, bytes]:
    """Return a database's rows, without the reserved rows."""
    items = db.iter()
    items.seek_to_first()
    rows: dict[bytes, bytes] = {}
    while items.valid():
        if not (key := items.key()).startswith(RESERVED):
            rows[key] = items.value()
        items.next()
    # The iterator also ends at a damaged block; ``status`` then raises an error.
    items.status()
    return rows


async def _compare(
    reader: LedgerReader, table: TableName, partition: int, databases: Mapping[str, Database]
) -> list[str]:
    """Read a changelog once, and compare each database when its ``end`` is reached."""
    topic = reader.names.changelog(table)
    waiting = sorted(databases.items(), key=lambda each: each[1].end)
    rows: dict[bytes, bytes] = {}
    differences: list[str] = []
    ends = {partition: (await reader.ends(topic))[partition]}

    def reached(offset: int) -> None:
        while waiting and waiting[0][1].end <= offset:
            label, database = waiting.pop(0)
            differences.extend(f"{label}: {each}" for each in _differing(database, rows))

    async for _, records in reader.read(topic, {partition: 0}, ends):
        for record in records:
            reached(record.offset)
            if record.key.startswith(RESERVED):
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
    reached(ends[partition])
    return [
        *differences,
        *(
            f"{label}: {each.path} ends at {each.end}, but {topic}[{partition}] ends at "
            f"{ends[partition]}"
            for label, each in waiting
        ),
    ]


def _differing(database: Database, rows: Mapping[bytes, bytes]) -> Iterator[str]:
    place = f"{database.path.name} at offset {database.end}"
    if not database.is_digest_right:
        yield f"{place}: its digest does not match its rows"
    held = database.rows
    wrong = {
        "lacks": [key for key in rows if key not in held],
        "should not have": [key for key in held if key not in rows],
        "has another value for": [key for key in rows if held.get(key, rows[key]) != rows[key]],
    }
    counts = Counter({what: len(keys) for what, keys in wrong.items() if keys})
    for what, number in counts.items():
        named = ", ".join(repr(key) for key in sorted(wrong[what])[:_MOST_NAMED])
        yield f"{place}: it {what} {number} of {len(rows)} keys: {named}"
