"""The journal at one moment: all entries, sorted, and the standing entries.

Input: the records of ``ledger.entries`` up to some offset of each partition, in any order; a record
may occur several times. Output: the entries by id, the entries sorted by their events' times, the
standing entries (those that are not reversed), and the corrections of which only a part was read.
An unusable record raises ``JournalFaultError``.
"""

from collections.abc import Iterator

from ledger.journal import Entry, Subject, subject_of_entry
from ledger.wire import ENTRIES, UNDECODABLE


class JournalFaultError(ValueError):
    """A record can't be an entry of this journal; the message has the reason and the key."""


class JournalSnapshot:
    """Takes the journal's records, in any order."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def read(
        self, key: bytes | None, value: bytes | None, subjects: set[Subject] | None = None
    ) -> None:
        """Take one record if its entry's subject is in ``subjects``; ``None`` means all subjects.

        Raises ``JournalFaultError`` if the record is not an entry, or contradicts an earlier
        record.
        """
        entry = _decode(key, value)
        if subjects is not None and subject_of_entry(entry) not in subjects:
            return
        if self.entries.setdefault(entry.entry_id, entry) != entry:
            raise JournalFaultError(f"entry {entry.entry_id!r} occurred before with other content")

    def ordered(self) -> list[Entry]:
        """Return each entry once, sorted by time, then by its event's place in the log of record.

        An entry comes before its reversal. The sequence depends only on the entries. It depends
        neither on when the partitions were read, nor on when corrections were posted.
        """
        return sorted(self.entries.values(), key=_place)

    def standing(self) -> dict[Subject, Entry]:
        """Return the standing entry of each subject: the entry that is not reversed."""
        return {subject_of_entry(entry): entry for entry in self._unreversed()}

    def cut_corrections(self) -> set[Subject]:
        """Return the subjects that have a correction of which only a part was read.

        A correction is a reversal and a new entry. They may be in two partitions, so possibly only
        one of them was read. In a complete journal, each subject has exactly one standing entry,
        unless the payment has set aside all facts of the subject. The journal also has every entry
        that a reversal reverses.
        """
        cut: set[Subject] = set()
        standing: set[Subject] = set()
        for entry in self._unreversed():
            subject = subject_of_entry(entry)
            if subject in standing:
                cut.add(subject)
            standing.add(subject)
        for entry in self.entries.values():
            subject = subject_of_entry(entry)
            if subject not in standing or (entry.reverses or entry.entry_id) not in self.entries:
                cut.add(subject)
        return cut

    def _unreversed(self) -> Iterator[Entry]:
        reversed_ids = {entry.reverses for entry in self.entries.values()}
        for entry in self.entries.values():
            if entry.reverses is None and entry.entry_id not in reversed_ids:
                yield entry


def _decode(key: bytes | None, value: bytes | None) -> Entry:
    name = (key or b"").decode(errors="replace")
    try:
        entry = ENTRIES.decode(value or b"")
    except UNDECODABLE as error:
        raise JournalFaultError(
            f"the value under the key {name!r} is not an entry: {error}"
        ) from None
    if entry.entry_id.encode() != key:
        raise JournalFaultError(f"entry {entry.entry_id!r} is stored under another key, {name!r}")
    return entry


def _place(entry: Entry) -> tuple[int, int, int, bool, str]:
    is_reversal = entry.reverses is not None
    return entry.created, entry.partition, entry.offset, is_reversal, entry.entry_id
