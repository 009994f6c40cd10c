"""The journal in the formats of others: Beancount, hledger, and a table as CSV.

In: the journal's entries in their order, and a line that says where they are from. Out: text, piece
by piece. Never: a character beyond ASCII, or one of an id that means anything to a reader: ids come
from outside, and are percent-quoted; and never a float: amounts are written from integers.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from cli.accounting import Format
from ledger.journal import Entry
from ledger.money import MINOR_UNIT_DIGITS, major_units

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# No reader has days after this one. A sender that counts in milliseconds is far beyond it.
_LAST_DAY: Final = "9999-12-31"
_LAST_SECOND: Final = int((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds())
# As wide as the largest amount that a fact may have, with its sign and point.
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
    """Percent-quote a text of any kind; ``urllib.parse.unquote`` gives it back.

    What stays are letters and digits of ASCII, and ``_ . - ~ /``; not a minus at the beginning,
    which makes a formula in a spreadsheet.

    >>> quoted("pay_1/7"), quoted('№ "1"; a,b'), quoted("-1")
    ('pay_1/7', '%E2%84%96%20%221%22%3B%20a%2Cb', '%2D1')
    """
    safe = quote(text, safe="/")
    return f"%2D{safe[1:]}" if safe.startswith("-") else safe


def day(created: int) -> str:
    """Return the day in UTC of a time in Unix seconds; of all later ones the last of year 9999.

    >>> day(1767225600), day(1767225600000)
    ('2026-01-01', '9999-12-31')
    """
    if created >= _LAST_SECOND:
        return _LAST_DAY
    return f"{_EPOCH + timedelta(seconds=created):%Y-%m-%d}"


def beancount(entries: Sequence[Entry], origin: str) -> Iterator[str]:
    """Write transactions with metadata, after an ``open`` directive for each account."""
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
            amount = major_units(posting.amount, posting.currency)
            account = _beancount_account(posting.account)
            yield f"  {account:<18}  {amount:>{_AMOUNT_WIDTH}} {posting.currency}\n"


def hledger(entries: Sequence[Entry], origin: str) -> Iterator[str]:
    """Write transactions with tags, after the accounts and commodities, as strict checks want."""
    # The mark is named, and not left to be guessed: 1.000 BHD is one, and not a thousand.
    yield f"; {origin}\n\ndecimal-mark .\n"
    for account in _accounts(entries):
        yield f"account {account}\n"
    for currency in sorted({each.currency for entry in entries for each in entry.postings}):
        # The mark has to stand there also where there are no decimals.
        yield f"commodity 1.{'0' * MINOR_UNIT_DIGITS[currency]} {currency}\n"
    for entry in entries:
        yield f"\n{day(entry.created)} * Plexy | {_title(entry)}\n"
        for name, value in _metadata(entry).items():
            yield f"    ; {name}:{quoted(str(value))}\n"
        for posting in entry.postings:
            amount = major_units(posting.amount, posting.currency)
            yield f"    {posting.account:<18}  {amount:>{_AMOUNT_WIDTH}} {posting.currency}\n"


def csv_table(entries: Sequence[Entry], _origin: str) -> Iterator[str]:
    """Write a row for each posting, after one with the names of the columns."""
    row = io.StringIO()
    writer = csv.DictWriter(row, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        named = {name: quoted(str(value)) for name, value in _metadata(entry).items()}
        for posting in entry.postings:
            amount = major_units(posting.amount, posting.currency)
            leg = {"account": posting.account, "amount": amount, "currency": posting.currency}
            writer.writerow({"date": day(entry.created), **named, **leg})
        yield row.getvalue()
        row.seek(0)
        row.truncate()
    yield row.getvalue()


FORMATS: Final[Mapping[Format, Callable[[Sequence[Entry], str], Iterator[str]]]] = MappingProxyType(
    {Format.BEANCOUNT: beancount, Format.HLEDGER: hledger, Format.CSV: csv_table}
)


def _metadata(entry: Entry) -> dict[str, str | int]:
    """Return what stands beside the money: whose it is, and where in the log of record."""
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
    if entry.refund_id is not None:
        title = f"refund {quoted(entry.refund_id)} of {title}"
    return f"reversal of {title}" if entry.reverses else title


def _accounts(entries: Sequence[Entry]) -> list[str]:
    return sorted({posting.account for entry in entries for posting in entry.postings})


def _beancount_account(account: str) -> str:
    return ":".join(part.capitalize() for part in account.split(":"))
