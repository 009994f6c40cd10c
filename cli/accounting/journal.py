"""Reads the journal as it is now, whole, beside a live ledger.

In: Kafka's settings. Out: every entry that follows from what was in the log when the reading began,
and where the reading ended. Never: half of a correction, an entry that can't be read, or a journal
that has lost its beginning: ``JournalError`` says what is wrong.

A correction is two records in two partitions, which are written one a moment before the other.
Where an end lies between them, what the workers had in hand is waited for, and the rest of that
correction is read from it. Nothing else is: what goes on behind the ends can't keep a reader busy.
An entry that is reversed for good, since its payment has no room for the fact, is told from half of
a correction by the table ``payments``.
"""

from collections.abc import Callable
from functools import partial

import msgspec
from rich.console import Console

from cli.errors import JournalError
from cli.printing import counting
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader, sizes
from cli.topics.progress import progress_bar
from ledger.accounting.snapshot import JournalFaultError, JournalSnapshot
from ledger.journal import Subject
from ledger.payments import Standing
from ledger.wire import PAYMENTS
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import TopicSettings

_REMEDY = "`plexy-ledger verify` names all that is wrong, and `rebuild` makes the journal anew"


class Journal(msgspec.Struct, frozen=True):
    """The entries, and the topic that they were read from, up to which offset of each partition.

    Of a correction that these ends cut the rest is there too.
    """

    snapshot: JournalSnapshot
    topic: str
    ends: Offsets

    @property
    def origin(self) -> str:
        """Where the entries are from, in words."""
        ends = ", ".join(f"{number}:{end}" for number, end in sorted(self.ends.items()))
        return f"{len(self.snapshot.entries)} entries of {self.topic}, up to offsets {ends}"


async def read_journal(settings: TopicSettings, wait_s: float, console: Console) -> Journal:
    """Read the journal once the workers have folded what is in the log now.

    ``NotFoldedError`` if that takes longer than ``wait_s``.
    """
    async with open_reader(settings) as reader:
        return await whole_journal(reader, wait_s, console)


async def whole_journal(reader: LedgerReader, wait_s: float, console: Console) -> Journal:
    """Read the journal from its first record to its ends, and on where a correction is cut there.

    What the workers had in hand is written once they have folded what was in the log after that:
    a correction of which nothing came by then stays half, which is a ``JournalError``.
    """
    topic = reader.names.topics.entries
    if any((await reader.begins(topic)).values()):
        raise JournalError(f"the first entries of {topic} are deleted: {_REMEDY}")
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
            cut -= await _set_aside(reader, cut)
            if not cut:
                break
            payment_id = min(subject.payment_id for subject in cut)
            raise JournalError(
                f"{topic} has a correction of payment {payment_id!r} only in part: {_REMEDY}"
            )
    return Journal(snapshot, topic, first)


async def _set_aside(reader: LedgerReader, subjects: set[Subject]) -> set[Subject]:
    """Return those of which nothing stands because their payments have no room for their facts."""
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
            if payment and payment.first_aside and subject not in Standing(payment).facts:
                found.add(subject)
    return found


async def _ends(reader: LedgerReader, wait_s: float, console: Console) -> Offsets:
    """Return the journal's ends once all that is in the log now is folded."""
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
    with counting(console, {topic: sizes(starts, ends)}) as heard:
        async for partition, records in reader.read(topic, starts, ends):
            for record in records:
                try:
                    take(record.key, record.value)
                except JournalFaultError as error:
                    place = f"partition {partition}, offset {record.offset}"
                    raise JournalError(f"{topic}, {place}: {error}: {_REMEDY}") from None
            heard(topic, len(records))
