"""`plexy-ledger export-log` writes the log of record to a new file while the ledger runs.

The file receives its final name only after it is complete and on the disk. No existing file is
replaced.

If partitions were added to the log after the log's creation, the file has only the original
partitions. No worker has folded the records of the added partitions. In the file, these records
follow the records of the original partitions.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from aiokafka.structs import ConsumerRecord
from rich.console import Console

from cli.log.log_file import (
    MAX_BLOCK_BYTES,
    Block,
    End,
    Gap,
    Header,
    LogFileWriter,
    LogRecord,
    as_blocks,
)
from cli.printing import counting, line
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader
from cli.whole_file import appears_whole
from ledger.unread import first_offset_of
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import TopicSettings

# An unreadable batch is written as empty records; one block has at most this many of them.
_MOST_IN_BLOCK: Final = 10_000


def export_log(environment: Mapping[str, str], path: Path, console: Console) -> bool:
    """Write the log of record to a new file; return whether the file has every record."""
    settings = TopicSettings.from_environment(environment)
    started = time.monotonic()
    with appears_whole(path) as file:
        header, writer = asyncio.run(_export(settings, file, console))
        end = writer.end()
    took_s = time.monotonic() - started
    show_contents(console, path, header, end)
    size = f"{path.stat().st_size / 1e6:,.1f} MB"
    rate = f"{end.records / max(took_s, 0.001):,.0f} records a second"
    line(console, f"{'wrote':<10} {size} in {took_s:.1f} s, {rate}")
    for each in writer.left_out:
        limit = f"more than the {MAX_BLOCK_BYTES:,} bytes that a record in a file can have"
        line(console, f"left out   {each}: {limit}", "bold red")
    return not show_gaps(console, writer.inventory.gaps)


async def _export(
    settings: TopicSettings, file: BinaryIO, console: Console
) -> tuple[Header, LogFileWriter]:
    async with open_reader(settings) as reader:
        topic, made_with = reader.names.topics.webhooks, await reader.made_with()
        begins, ends = await reader.begins(topic), await reader.ends(topic)
        # These partitions were added after the log's creation.
        spare = {number: end for number, end in ends.items() if number >= made_with}
        own = {number: end for number, end in ends.items() if number < made_with}
        moved: Counter[int] = Counter()
        async for _, records in reader.read(topic, begins, spare):
            moved.update(partition_for(record.key or b"", made_with) for record in records)
        header = await _header(reader, begins, {n: own[n] + moved[n] for n in own})
        writer = LogFileWriter(file, header)
        with counting(console, {topic: header.records}) as bar:
            async for partition, records in reader.read(topic, begins, own):
                for block in _blocks(partition, records):
                    writer.write(block)
                bar(topic, len(records))
            async for _, records in reader.read(topic, begins, spare):
                for record in records:
                    partition = partition_for(record.key or b"", made_with)
                    writer.write(Block(partition, own[partition], [record_of(record)]))
                    own[partition] += 1
                bar(topic, len(records))
    if moved:
        line(
            console,
            f"moved      {moved.total():,} records of added partitions ({made_with} and higher) to "
            "the ends of the original partitions, because no worker reads the added partitions",
        )
    return header, writer


def record_of(record: ConsumerRecord[bytes, bytes]) -> LogRecord:
    """Convert a consumer's record to a record of the file."""
    value = None if record.value is None else bytes(record.value)
    return LogRecord(record.timestamp, record.key, value, tuple(record.headers))


def _blocks(partition: int, records: list[ConsumerRecord[bytes, bytes]]) -> Iterator[Block]:
    """Yield consecutive records as blocks.

    A batch that can't be read is written as one record per offset. All these records are empty
    except for the last, whose value is a sentence about the batch. So an import restores all other
    records at their former offsets.
    """
    readable: list[ConsumerRecord[bytes, bytes]] = []
    for record in records:
        first = first_offset_of(record.offset, record.value)
        if first < record.offset:
            yield from _read_blocks(partition, readable)
            readable = []
            empty = LogRecord(record.timestamp, None, None, ())
            for offset in range(first, record.offset, _MOST_IN_BLOCK):
                yield Block(
                    partition, offset, [empty] * min(_MOST_IN_BLOCK, record.offset - offset)
                )
        readable.append(record)
    yield from _read_blocks(partition, readable)


def _read_blocks(partition: int, records: list[ConsumerRecord[bytes, bytes]]) -> list[Block]:
    offsets = [record.offset for record in records]
    return as_blocks(partition, offsets, map(record_of, records))


def show_contents(console: Console, path: Path, header: Header, end: End) -> None:
    """Print the contents of a file."""
    line(console, f"{'file':<10} {path}")
    line(
        console,
        f"{'log':<10} {header.topic} of cluster {header.cluster_id}, {header.partitions} "
        f"partitions, as of {header.exported_at}",
    )
    held = ", ".join(
        f"{number}:{each.first}-{each.last}" if each.records else f"{number}:none"
        for number, each in enumerate(end.partitions)
    )
    line(console, f"{'records':<10} {end.records:,} in {end.blocks:,} blocks; offsets {held}")


def show_gaps(console: Console, gaps: list[Gap]) -> bool:
    """Print the offsets that are missing from the file; return whether any offset is missing."""
    for gap in gaps:
        line(console, f"missing    {gap}: the file has no record there", "bold red")
    return bool(gaps)


async def _header(reader: LedgerReader, begins: Offsets, ends: Offsets) -> Header:
    return Header(
        topic=reader.names.topics.webhooks,
        cluster_id=await reader.cluster_id(),
        exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        begins=tuple(begins[number] for number in sorted(ends)),
        ends=tuple(ends[number] for number in sorted(ends)),
    )
