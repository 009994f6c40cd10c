"""`plexy-ledger rejected retry` puts rejected items back into the log after a fix.

For each item, a retry appends the delivery to the log, with its original bytes, signature and time
of arrival. The retry marks the item as put back in ``plexy.rejected`` only after Kafka has
acknowledged the delivery. If a crash happens before the mark is written, the item stays open. The
next retry then appends the same delivery again, and the ledger recognises it as a duplicate.
"""

import asyncio
import time
from collections.abc import Mapping

import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console

from cli.errors import WrongOptionError
from cli.printing import counting, line
from cli.quarantine.items import ItemReader, Put, Records, judge, read_quarantine
from cli.quarantine.rejected import at, found, state_text
from cli.settings import JudgeSettings
from cli.topics.ledger_reader import LedgerReader, open_reader
from cli.topics.ledger_writer import open_writer
from ledger.quarantine import Item, PutBack, Quarantine, Refusal, Source
from ledger.rejected import put_back_record
from ledger.rejections import Reason
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import ensure_topics


class RetryOptions(msgspec.Struct, frozen=True):
    """Selects items by id, by reason, or all items; ``again`` includes items already put back."""

    ids: tuple[str, ...] = ()
    reason: Reason | None = None
    everything: bool = False
    again: bool = False
    dry_run: bool = False

    def check(self) -> None:
        """Refuse options that do not select items in exactly one way."""
        if bool(self.ids) + (self.reason is not None) + self.everything != 1:
            raise WrongOptionError("choose exactly one of ids, --reason and --all")


def retry(environment: Mapping[str, str], options: RetryOptions, console: Console) -> bool:
    """Put back the items that are valid now; return whether all items are valid."""
    options.check()
    settings = JudgeSettings.from_environment(environment)
    return asyncio.run(_retry(settings, options, console))


async def _retry(settings: JudgeSettings, options: RetryOptions, console: Console) -> bool:
    await ensure_topics(settings, create=False)
    async with open_reader(settings) as reader, open_writer(settings) as producer:
        quarantine = await read_quarantine(reader, console)
        items = _chosen(quarantine, options, console)
        retrying = _Retry(settings, options, reader, producer, quarantine, console)
        with counting(console, {"items": len(items)}, "retrying") as bar:
            for item in items:
                await retrying.one(item)
                bar("items", 1)
    done = "would be put back" if options.dry_run else "put back"
    line(console, f"{retrying.put_back} {done}, {len(items) - retrying.put_back} left as they are")
    return retrying.put_back == len(items)


def _chosen(quarantine: Quarantine, options: RetryOptions, console: Console) -> list[Item]:
    """Return the items to retry, in the sequence of the log; print the items already put back."""
    if options.ids:
        items = [found(quarantine, item_id) for item_id in dict.fromkeys(options.ids)]
        for item in items:
            if item.put_back and not options.again:
                already = f"already {state_text(item)}, on {at(item.put_back.at_ms)} UTC"
                line(console, f"left       {item.id}: {already}; --again repeats it")
    else:
        items = [
            item
            for item in quarantine.items.values()
            if options.everything or item.reason == options.reason
        ]
    wanted = (item for item in items if item.is_open or options.again)
    return sorted(wanted, key=lambda item: item.source or Source(item.id, 0, 0))


class _Retry:
    """Retries items one after another; ``put_back`` counts the items that were put back."""

    def __init__(  # noqa: PLR0913, PLR0917 - the dependencies of a retry
        self,
        settings: JudgeSettings,
        options: RetryOptions,
        reader: LedgerReader,
        producer: AIOKafkaProducer,
        quarantine: Quarantine,
        console: Console,
    ) -> None:
        self.put_back = 0
        self._settings = settings
        self._dry_run = options.dry_run
        self._items = ItemReader(reader)
        self._producer = producer
        self._quarantine = quarantine
        self._console = console

    async def one(self, item: Item) -> None:
        """Put an item back, or print why it stays rejected."""
        records = await self._items.records(item)
        verdict = judge(item, records, self._settings)
        earlier = self._quarantine.before(item)
        if earlier is not None:
            verdict = Refusal(
                f"{earlier.id} is the same event, earlier in the log: retry that item too"
            )
        if isinstance(verdict, Refusal):
            line(self._console, f"left       {item.id}: {verdict.why}")
            return
        to = verdict.topic if self._dry_run else await self._put(verdict, records)
        line(self._console, f"put back   {item.id}: to {to}")
        self._quarantine.items[item.id] = msgspec.structs.replace(
            item, put_back=PutBack(to, _now_ms())
        )
        self.put_back += 1

    async def _put(self, put: Put, records: Records) -> str:
        """Write the record; after Kafka has acknowledged it, mark the item as put back."""
        to = str(await self._write(put.topic, put.record))
        kept = records.kept
        mark = put_back_record(kept.key or b"", kept.value or b"", kept.headers, to, _now_ms())
        await self._write(self._settings.names.rejected, OutRecord(*mark))
        return to

    async def _write(self, topic: str, record: OutRecord) -> Source:
        partition = partition_for(record.key, self._settings.partitions)
        offset = (await send_to_partition(self._producer, topic, partition, [record])).last
        return Source(topic, partition, offset)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
