"""`plexy-ledger import-log`: the log of record out of a file, into an empty topic.

In: settings, a file of `export-log`. Out: the same records at the same partitions and offsets,
since facts carry their places: equal states need equal offsets.

The whole file is read and checked before anything is written. The records that the topic has
already must be the beginning of the file, so an interrupted import continues where it ended, and a
topic with other records is not touched. Memory holds one block of the file at a time.
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
    """Bring a file's records into the log of record; return whether the file can be imported."""
    with counting(console, {path.name: _records_of(path)}, "checking") as bar:
        header, end, gaps = _checked(path, bar)
    show_contents(console, path, header, end)
    if show_gaps(console, gaps):
        line(
            console,
            "The records behind a gap would stand at other offsets than before, so this file is "
            "not imported: look for an older one that has them",
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
            del block  # The next one is read before the loop would let this one go.
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
            f"{path} has {header.partitions} partitions, and LEDGER_PARTITIONS is "
            f"{settings.partitions}: set LEDGER_PARTITIONS={header.partitions}, since a record's "
            "partition is a part of its place"
        )
    await ensure_topics(settings, restores_log=True)
    started = time.monotonic()
    async with open_reader(settings) as reader:
        topic = reader.names.topics.webhooks
        there = await _there(reader, path, header)
        written = header.records - sum(there.values())
        if there_records := sum(there.values()):
            with counting(console, {topic: there_records}, "comparing") as bar:
                await _compare(reader, path, there, bar)
            line(console, f"{topic} has {there_records:,} records of this file already")
        async with open_writer(settings) as producer:
            with counting(console, {topic: written}, "writing") as bar:
                await _write(producer, path, topic, there, bar)
    await record_log(settings)
    took_s = time.monotonic() - started
    rate = f" in {took_s:.1f} s, {written / took_s:,.0f} records a second" if written else ""
    line(console, f"{topic}: {written:,} records written{rate}")
    line(console, "The log is as it was exported", "bold green")


async def _there(reader: LedgerReader, path: Path, header: Header) -> Offsets:
    """Return how many records each partition has; none has more than the file."""
    topic = reader.names.topics.webhooks
    begins, ends = await reader.begins(topic), await reader.ends(topic)
    for partition, end in ends.items():
        if begins[partition]:
            raise _not_ours(topic, partition, f"it begins at offset {begins[partition]}, not at 0")
        if end > header.ends[partition]:
            raise _not_ours(
                topic, partition, f"it has {end} records, {path} has {header.ends[partition]} of it"
            )
    return ends


async def _compare(reader: LedgerReader, path: Path, there: Offsets, bar: Heard) -> None:
    """Raise unless what the topic has is the file's beginning, partition by partition."""
    topic = reader.names.topics.webhooks
    with _opened(path) as file:
        for block in file.blocks():
            bar(topic, await _compare_block(reader, topic, block, there[block.partition]))
            del block


async def _compare_block(reader: LedgerReader, topic: str, block: Block, there: int) -> int:
    """Compare the records of a block that the topic has; return how many they are."""
    partition, end = block.partition, min(block.next_offset, there)
    if block.offset >= end:
        return 0
    found: dict[int, LogRecord] = {}
    async for _, records in reader.read(topic, {partition: block.offset}, {partition: end}):
        found |= {record.offset: record_of(record) for record in records}
    for offset, record in enumerate(block.records[: end - block.offset], block.offset):
        if found.get(offset) != record:
            raise _not_ours(topic, partition, f"offset {offset} has another record there")
    return end - block.offset


def _not_ours(topic: str, partition: int, why: str) -> LogFileError:
    return LogFileError(
        f"{topic} is not the beginning of this file; partition {partition}: {why}. Nothing was "
        "written. Import into a new ledger (another LEDGER_TOPIC_PREFIX), or delete the topic"
    )


async def _write(
    producer: AIOKafkaProducer, path: Path, topic: str, there: Offsets, bar: Heard
) -> None:
    with _opened(path) as file:
        for block in file.blocks():
            bar(topic, await _write_block(producer, topic, block, there[block.partition]))
            del block


async def _write_block(producer: AIOKafkaProducer, topic: str, block: Block, there: int) -> int:
    """Write the records of a block that the topic does not have; return how many they are."""
    rest = block.records[max(there - block.offset, 0) :]
    if not rest:
        return 0
    written = await send_to_partition(producer, topic, block.partition, rest)
    if written.last != block.next_offset - 1:
        raise NotWrittenError(
            f"somebody else writes to {topic}: in partition {block.partition} a record of the "
            f"file came to offset {written.last}, and belongs to {block.next_offset - 1}. Stop "
            "ingress, delete the topic, and import again"
        )
    if not written.keeps_times:
        raise NotWrittenError(
            f"{topic} was changed to message.timestamp.type=LogAppendTime, and has given records "
            f"of partition {block.partition}, up to offset {written.last}, other times than they "
            "have in the file. Find out who changed it, delete the topic, and import again"
        )
    return len(rest)
