"""`plexy-ledger import-log` restores the log of record from a file of `export-log`.

Each record gets its former partition and offset, because a fact contains the partition and the
offset of its record.

The whole file is checked before the first write. If the topic already has records, they must equal
the beginning of the file. So an interrupted import continues after these records, and a topic with
other records is not changed. Memory holds only one block of the file at a time.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer
from rich.console import Console

from cli.errors import LogFileError, NotWrittenError, WrongOptionError
from cli.log.export_log import record_of, show_contents, show_gaps
from cli.log.log_file import Block, End, Gap, Header, LogFile, LogRecord
from cli.printing import Heard, counting, line
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader
from cli.topics.ledger_writer import open_writer
from runtime.kafka.batches import send_to_partition
from runtime.kafka.topics import TopicSettings, ensure_topics, record_log


def import_log(
    environment: Mapping[str, str], path: Path, console: Console, *, only_check: bool
) -> bool:
    """Import a file into the log of record; return whether the file can be imported."""
    with counting(console, {path.name: _records_of(path)}, "checking") as bar:
        header, end, gaps = _checked(path, bar)
    show_contents(console, path, header, end)
    if show_gaps(console, gaps):
        line(
            console,
            "The records after a gap would get different offsets, so this file is not imported: "
            "find an older file that has the missing records",
            "bold red",
        )
        return False
    if only_check:
        line(console, "Every checksum is right", "bold green")
        return True
    asyncio.run(_import(TopicSettings.from_environment(environment), path, header, console))
    return True


def _records_of(path: Path) -> int:
    with _opened(path) as file:
        return file.header.records


def _checked(path: Path, bar: Heard) -> tuple[Header, End, list[Gap]]:
    with _opened(path) as file:
        for block in file.blocks():
            bar(path.name, len(block.records))
            del block  # otherwise it stays in memory while the next block is read
        return file.header, file.end, file.gaps


@contextmanager
def _opened(path: Path) -> Iterator[LogFile]:
    try:
        with path.open("rb") as file:
            yield LogFile(file)
    except LogFileError as error:
        raise LogFileError(f"{path}: {error}") from None


async def _import(settings: TopicSettings, path: Path, header: Header, console: Console) -> None:
    if settings.partitions != header.partitions:
        raise WrongOptionError(
            f"{path} has {header.partitions} partitions, but LEDGER_PARTITIONS is "
            f"{settings.partitions}: set LEDGER_PARTITIONS={header.partitions}, because each "
            "record must keep its partition"
        )
    await ensure_topics(settings, restores_log=True)
    started = time.monotonic()
    async with open_reader(settings, restores_log=True) as reader:
        topic = reader.names.topics.webhooks
        ends = await _ends(reader, path, header)
        existing = sum(ends.values())
        written = header.records - existing
        if existing:
            with counting(console, {topic: existing}, "comparing") as bar:
                await _compare(reader, path, ends, bar)
            line(console, f"{topic} has {existing:,} records of this file already")
        async with open_writer(settings) as producer:
            with counting(console, {topic: written}, "writing") as bar:
                await _write(producer, path, topic, ends, bar)
    await record_log(settings)
    took_s = time.monotonic() - started
    rate = f" in {took_s:.1f} s, {written / took_s:,.0f} records a second" if written else ""
    line(console, f"{topic}: {written:,} records written{rate}")
    line(console, "The log is equal to the exported log", "bold green")


async def _ends(reader: LedgerReader, path: Path, header: Header) -> Offsets:
    """Return each partition's number of records; raise if a partition does not fit the file."""
    topic = reader.names.topics.webhooks
    begins, ends = await reader.begins(topic), await reader.ends(topic)
    for partition, end in ends.items():
        if begins[partition]:
            raise _not_ours(topic, partition, f"it begins at offset {begins[partition]}, not at 0")
        if end > header.ends[partition]:
            raise _not_ours(
                topic, partition, f"it has {end} records, but {path} has {header.ends[partition]}"
            )
    return ends


async def _compare(reader: LedgerReader, path: Path, ends: Offsets, bar: Heard) -> None:
    """Raise unless the topic's records equal the file's first records in each partition."""
    topic = reader.names.topics.webhooks
    with _opened(path) as file:
        for block in file.blocks():
            bar(topic, await _compare_block(reader, topic, block, ends[block.partition]))
            del block


async def _compare_block(reader: LedgerReader, topic: str, block: Block, end: int) -> int:
    """Compare a block's records before ``end`` with the topic's records; return their number."""
    partition, end = block.partition, min(block.next_offset, end)
    if block.offset >= end:
        return 0
    found: dict[int, LogRecord] = {}
    async for _, records in reader.read(topic, {partition: block.offset}, {partition: end}):
        found |= {record.offset: record_of(record) for record in records}
    for offset, record in enumerate(block.records[: end - block.offset], block.offset):
        if found.get(offset) != record:
            raise _not_ours(topic, partition, f"the topic's record at offset {offset} differs")
    return end - block.offset


def _not_ours(topic: str, partition: int, why: str) -> LogFileError:
    return LogFileError(
        f"{topic} is not the beginning of this file; partition {partition}: {why}. Nothing was "
        "written. Import into a new ledger (another LEDGER_TOPIC_PREFIX), or delete the topic"
    )


async def _write(
    producer: AIOKafkaProducer, path: Path, topic: str, ends: Offsets, bar: Heard
) -> None:
    with _opened(path) as file:
        for block in file.blocks():
            bar(topic, await _write_block(producer, topic, block, ends[block.partition]))
            del block


async def _write_block(producer: AIOKafkaProducer, topic: str, block: Block, end: int) -> int:
    """Write those records of a block that follow the topic's ``end``; return their number."""
    rest = block.records[max(end - block.offset, 0) :]
    if not rest:
        return 0
    written = await send_to_partition(producer, topic, block.partition, rest)
    if written.last != block.next_offset - 1:
        raise NotWrittenError(
            f"another program writes to {topic}: in partition {block.partition}, a record of the "
            f"file got offset {written.last}, expected {block.next_offset - 1}. Stop ingress, "
            "delete the topic, and import again"
        )
    if not written.keeps_times:
        raise NotWrittenError(
            f"{topic} was changed to message.timestamp.type=LogAppendTime, so in partition "
            f"{block.partition}, records up to offset {written.last} got times that differ from "
            "the times in the file. Find out who changed the topic, delete the topic, and import "
            "again"
        )
    return len(rest)
