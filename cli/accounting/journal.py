"""Reads the whole journal while the ledger runs.

The result has every entry for the records that were in the log when reading began, and the offsets
at which reading ended. ``JournalError`` is raised if the journal has lost its beginning, if an
entry is unreadable, or if the journal has only half of a correction.

A correction has two halves: the reversal of an old entry, and a new entry. The halves are two
records in two partitions, and one half is written shortly after the other half. If the end offsets
include only one half, the reader waits for the workers. Then it continues only until it has read
the other half, so that new records can't keep the reader busy.

In one case, a reversal is complete although no new entry follows it. A payment keeps its facts only
up to a limited size, and sets aside the latest facts that no longer fit. If the payment has set
aside the fact for which a new entry is missing, the journal never gets that entry. The table
``payments`` shows which payments have set facts aside.
"""

from collections.abc import Callable
from functools import partial

import msgspec
from rich.console import Console

from cli.errors import JournalError
from cli.printing import counting
from cli.topics.lag import progress_bar
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader, sizes
from ledger.accounting.snapshot import JournalFaultError, JournalSnapshot
from ledger.journal import Subject
from ledger.payments import standing_of
from ledger.wire import PAYMENTS
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import TopicSettings

_REMEDY = "`plexy-ledger verify` lists every difference, and `rebuild` makes a new journal"


class Journal(msgspec.Struct, frozen=True):
    """The entries, the topic that they were read from, and the end offset of each partition.

    If only one half of a correction is below the end offsets, the entries still include both
    halves.
    """

    snapshot: JournalSnapshot
    topic: str
    ends: Offsets

    @property
    def origin(self) -> str:
        """A description of the entries: their number, topic and offsets."""
        ends = ", ".join(f"{number}:{end}" for number, end in sorted(self.ends.items()))
        return f"{len(self.snapshot.entries)} entries of {self.topic}, up to offsets {ends}"


async def read_journal(settings: TopicSettings, wait_s: float, console: Console) -> Journal:
    """Wait until the workers have folded the current log, then read the journal.

    Raise ``NotFoldedError`` if the workers take longer than ``wait_s``.
    """
    async with open_reader(settings) as reader:
        return await whole_journal(reader, wait_s, console)


async def whole_journal(reader: LedgerReader, wait_s: float, console: Console) -> Journal:
    """Read the journal up to its end offsets; also read the missing halves of corrections.

    Each pass waits until the workers have folded the current log. After that, the missing halves
    must be in the journal. If a pass finds no new entry, ``JournalError`` is raised, unless every
    remaining reversal is complete because the payment has set aside the fact to post.
    """
    topic = reader.names.topics.entries
    if any((await reader.begins(topic)).values()):
        raise JournalError(f"the first entries of {topic} have been deleted: {_REMEDY}")
    snapshot = JournalSnapshot()
    first = at = await _ends(reader, wait_s, console)
    await _read(reader, dict.fromkeys(first, 0), first, snapshot.read, console)
    cut = snapshot.cut_corrections()
    while cut:
        starts, known = at, len(snapshot.entries)
        at = await _ends(reader, wait_s, console)
        await _read(reader, starts, at, partial(snapshot.read, subjects=cut), console)
        cut = snapshot.cut_corrections()
        if cut and len(snapshot.entries) == known:
            cut -= await _reversed_for_good(reader, cut)
            if not cut:
                break
            payment_id = min(subject.payment_id for subject in cut)
            raise JournalError(
                f"{topic} has only half of a correction of payment {payment_id!r}: {_REMEDY}"
            )
    return Journal(snapshot, topic, first)


async def _reversed_for_good(reader: LedgerReader, subjects: set[Subject]) -> set[Subject]:
    """Return the subjects that get no new entry, because their payment set their fact aside."""
    topic = reader.names.changelog("payments")
    partitions = len(await reader.ends(topic))
    found: set[Subject] = set()
    by_partition: dict[int, set[Subject]] = {}
    for subject in subjects:
        number = partition_for(subject.payment_id.encode(), partitions)
        by_partition.setdefault(number, set()).add(subject)
    for number, of_partition in by_partition.items():
        rows = await reader.latest(topic, number, lambda _topic, _records: None)
        for subject in of_partition:
            row = rows.get(subject.payment_id.encode())
            payment = PAYMENTS.decode(row) if row else None
            if payment and payment.first_aside and subject not in standing_of(payment).facts:
                found.add(subject)
    return found


async def _ends(reader: LedgerReader, wait_s: float, console: Console) -> Offsets:
    """Wait until the workers have folded the current log; return the journal's end offsets."""
    with progress_bar(console) as report:
        await reader.settle(wait_s, report)
    return await reader.ends(reader.names.topics.entries)


async def _read(
    reader: LedgerReader,
    starts: Offsets,
    ends: Offsets,
    take: Callable[[bytes | None, bytes | None], None],
    console: Console,
) -> None:
    topic = reader.names.topics.entries
    with counting(console, {topic: sizes(starts, ends)}) as count:
        async for partition, records in reader.read(topic, starts, ends):
            for record in records:
                try:
                    take(record.key, record.value)
                except JournalFaultError as error:
                    place = f"partition {partition}, offset {record.offset}"
                    raise JournalError(f"{topic}, {place}: {error}: {_REMEDY}") from None
            count(topic, len(records))
