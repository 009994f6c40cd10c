"""Writes the journal for Beancount, for hledger, or as a CSV table.

Each format takes the ordered entries and a line about their origin, and yields text in pieces. The
text is ASCII. Ids come from outside. They are percent-quoted, so that they can't change a file's
meaning. Amounts are written from integers, never from floats. The caller passes each currency's
number of decimals.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from cli.accounting import JournalFormat
from ledger.journal import Entry
from ledger.money import major_units

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Accounting programs reject days after this day. If a sender gives a time in milliseconds instead
# of seconds, the resulting day is far later.
_LAST_DAY: Final = "9999-12-31"
_LAST_SECOND: Final = int((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds())
# The largest amount that a fact can have is this many characters wide, including the sign and the
# decimal point.
_AMOUNT_WIDTH: Final = 18

_COLUMNS: Final = (
    "date",
    "created",
    "entry",
    "payment",
    "refund",
    "event",
    "partition",
    "offset",
    "reverses",
    "account",
    "amount",
    "currency",
)


def quoted(text: str) -> str:
    """Percent-quote any text; ``urllib.parse.unquote`` restores it.

    ASCII letters, digits and ``_ . - ~ /`` stay as they are. A minus at the start of the text is
    quoted, because a spreadsheet would read such a text as a formula.

    >>> quoted("pay_1/7"), quoted('№ "1"; a,b'), quoted("-1")
    ('pay_1/7', '%E2%84%96%20%221%22%3B%20a%2Cb', '%2D1')
    """
    safe = quote(text, safe="/")
    return f"%2D{safe[1:]}" if safe.startswith("-") else safe


def day(created: int) -> str:
    """Return the UTC day of a time in Unix seconds; any day after 9999-12-31 becomes 9999-12-31.

    >>> day(1767225600), day(1767225600000)
    ('2026-01-01', '9999-12-31')
    """
    if created >= _LAST_SECOND:
        return _LAST_DAY
    return f"{_EPOCH + timedelta(seconds=created):%Y-%m-%d}"


def beancount(entries: Sequence[Entry], origin: str, digits_of: Mapping[str, int]) -> Iterator[str]:
    """Write an ``open`` directive for each account, then the transactions with their metadata."""
    yield f"; {origin}\n\n"
    for account in _accounts(entries):
        yield f"{day(entries[0].created)} open {_beancount_account(account)}\n"
    for entry in entries:
        yield f'\n{day(entry.created)} * "Plexy" "{_title(entry)}"\n'
        for name, value in _metadata(entry).items():
            yield (
                f'  {name}: "{quoted(value)}"\n'
                if isinstance(value, str)
                else f"  {name}: {value}\n"
            )
        for posting in entry.postings:
            amount = major_units(posting.amount, posting.currency, digits_of)
            account = _beancount_account(posting.account)
            yield f"  {account:<18}  {amount:>{_AMOUNT_WIDTH}} {posting.currency}\n"


def hledger(entries: Sequence[Entry], origin: str, digits_of: Mapping[str, int]) -> Iterator[str]:
    """Write the declarations that hledger's strict mode requires, then transactions with tags."""
    # Without this line, hledger could read 1.000 BHD as one thousand BHD.
    yield f"; {origin}\n\ndecimal-mark .\n"
    for account in _accounts(entries):
        yield f"account {account}\n"
    for currency in sorted({each.currency for entry in entries for each in entry.postings}):
        # hledger requires the decimal mark even in a currency without decimals.
        yield f"commodity 1.{'0' * digits_of[currency]} {currency}\n"
    for entry in entries:
        yield f"\n{day(entry.created)} * Plexy | {_title(entry)}\n"
        for name, value in _metadata(entry).items():
            yield f"    ; {name}:{quoted(str(value))}\n"
        for posting in entry.postings:
            amount = major_units(posting.amount, posting.currency, digits_of)
            yield f"    {posting.account:<18}  {amount:>{_AMOUNT_WIDTH}} {posting.currency}\n"


def csv_table(
    entries: Sequence[Entry], _origin: str, digits_of: Mapping[str, int]
) -> Iterator[str]:
    """Write a header, and one row per posting."""
    row = io.StringIO()
    writer = csv.DictWriter(row, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        named = {name: quoted(str(value)) for name, value in _metadata(entry).items()}
        for posting in entry.postings:
            amount = major_units(posting.amount, posting.currency, digits_of)
            leg = {"account": posting.account, "amount": amount, "currency": posting.currency}
            writer.writerow({"date": day(entry.created), **named, **leg})
        yield row.getvalue()
        row.seek(0)
        row.truncate()
    yield row.getvalue()


_Writer = Callable[[Sequence[Entry], str, Mapping[str, int]], Iterator[str]]
FORMATS: Final[Mapping[JournalFormat, _Writer]] = MappingProxyType(
    {
        JournalFormat.BEANCOUNT: beancount,
        JournalFormat.HLEDGER: hledger,
        JournalFormat.CSV: csv_table,
    }
)


def _metadata(entry: Entry) -> dict[str, str | int]:
    """Return an entry's ids and time, and its fact's partition and offset; omit absent ids."""
    names = {
        "entry": entry.entry_id,
        "payment": entry.payment_id,
        "refund": entry.refund_id,
        "event": entry.event_id,
        "created": entry.created,
        "partition": entry.partition,
        "offset": entry.offset,
        "reverses": entry.reverses,
    }
    return {name: value for name, value in names.items() if value is not None}


def _title(entry: Entry) -> str:
    title = f"payment {quoted(entry.payment_id)}"
    what = entry.movement or "refund"
    item = entry.refund_id or entry.capture_id or entry.dispute_id
    if item is not None:
        title = f"{what.replace('_', ' ')} {quoted(item)} of {title}"
    elif entry.movement is not None:
        title = f"{what.replace('_', ' ')} of {title}"
    return f"reversal of {title}" if entry.reverses else title


def _accounts(entries: Sequence[Entry]) -> list[str]:
    return sorted({posting.account for entry in entries for posting in entry.postings})


def _beancount_account(account: str) -> str:
    return ":".join(part.capitalize() for part in account.split(":"))
