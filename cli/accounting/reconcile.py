"""Compares a processor's settlement file (CSV) with the journal: the command ``reconcile``.

The output lists the totals, and the payments and refunds that have no match on the other side. It
consists of tables or of JSON. A wrong value in the file is an error that names the file, the line,
the column and the value. No control character of an id reaches the terminal.
"""

import asyncio
import csv
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import chain
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.accounting.formats import day
from cli.accounting.journal import Journal, read_journal
from cli.accounting.settlement_values import plain_amount
from cli.errors import WrongOptionError
from cli.printing import counted, line, plain
from cli.settings import AccountingSettings
from ledger.accounting.settlement import (
    Line,
    LineKind,
    Mismatch,
    Period,
    Reconciliation,
    Total,
    money_of,
    reconcile,
    settled,
)
from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.journal import Entry
from ledger.money import MAX_AMOUNT_MINOR, Money, MoneyError, major_units, minor_units

COLUMNS: Final = ("payment_id", "amount", "currency", "kind")
_KINDS: Final[dict[str, LineKind]] = {"payment": "payment", "refund": "refund"}
# Amounts with more digits are refused: no real amount has that many digits, and Python is slow if a
# number has thousands of digits.
_MOST_DIGITS: Final = 30


class ReconcileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``reconcile``.

    The period includes its first day and its last day. Both days are in the time zone ``zone``.
    """

    path: Path
    minor: bool = False
    decimal: str | None = None
    zone: tzinfo = UTC
    first_day: datetime | None = None
    last_day: datetime | None = None
    as_json: bool = False
    wait_s: float = 60.0

    @property
    def period(self) -> Period:
        """The period in Unix seconds; ``WrongOptionError`` if ``--to`` is before ``--from``."""
        first, last = self.first_day, self.last_day
        if first and last and last < first:
            raise WrongOptionError(f"--to {last:%Y-%m-%d} is before --from {first:%Y-%m-%d}")
        return Period(
            None if first is None else _seconds(first, self.zone),
            None if last is None else _seconds(last + timedelta(days=1), self.zone),
        )


def reconcile_file(
    environment: Mapping[str, str], options: ReconcileOptions, console: Console, progress: Console
) -> bool:
    """Reconcile a file; return whether everything matches."""
    settings = AccountingSettings.from_environment(environment)
    digits_of = settings.minor_units.digits_of
    period = options.period
    lines = read_settlement(options.path, AmountFormat(options.minor, options.decimal, digits_of))
    journal = asyncio.run(read_journal(settings, options.wait_s, progress))
    found = reconcile(lines, settled(journal.snapshot.standing()), period)
    if options.as_json:
        document = _document(options, journal, found)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
    else:
        _show(options, journal, found, console, digits_of)
    return not found.mismatches


def _seconds(midnight: datetime, zone: tzinfo) -> int:
    return int(midnight.replace(tzinfo=zone).timestamp())


def _day(created: int, zone: tzinfo) -> str:
    return day(created) if zone is UTC else f"{datetime.fromtimestamp(created, zone):%Y-%m-%d}"


def _show(
    options: ReconcileOptions,
    journal: Journal,
    found: Reconciliation,
    console: Console,
    digits_of: Mapping[str, int],
) -> None:
    line(console, f"{'file':<10} {options.path}")
    line(console, f"{'ledger':<10} {journal.origin}; {_days(options)}")
    if found.mismatches:
        console.print(_mismatches_table(found.mismatches, options.zone, digits_of))
    console.print(_totals_table(found.totals, digits_of))
    if found.mismatches:
        differences = counted(len(found.mismatches), "difference")
        line(console, f"{found.matched:,} matched, {differences}", "bold red")
    else:
        line(console, f"{found.matched:,} matched, no difference", "bold green")


def _days(options: ReconcileOptions) -> str:
    first, last = options.first_day, options.last_day
    bounds = [f"from {first:%Y-%m-%d}"] if first else []
    bounds += [f"to {last:%Y-%m-%d}"] if last else []
    return " ".join(bounds) or "all days"


def _mismatches_table(
    mismatches: list[Mismatch], zone: tzinfo, digits_of: Mapping[str, int]
) -> Table:
    table = Table("difference", "payment", "kind", "line", "file", "ledger", "refund", "day")
    for column in table.columns:
        # Ids are wrapped, not shortened, because nobody could look up a shortened id.
        column.overflow = "fold"
        column.justify = "right" if column.header in {"line", "file", "ledger"} else "left"
    for each in mismatches:
        row, entry = each.line, each.entry
        cells = (
            each.finding.replace("_", " "),
            each.payment_id,
            each.kind,
            str(row.number) if row else "",
            _shown(row.money, digits_of) if row else "",
            _shown(money_of(entry), digits_of) if entry else "",
            (entry and entry.refund_id) or "",
            _day(entry.created, zone) if entry else "",
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table


def _totals_table(totals: list[Total], digits_of: Mapping[str, int]) -> Table:
    table = Table("kind", "currency", "lines", "file", "entries", "ledger", "more in file")
    for column in table.columns[2:]:
        column.justify = "right"
    for each in totals:
        amounts = (each.lines_minor, each.entries_minor, each.lines_minor - each.entries_minor)
        file, ledger, difference = (
            major_units(amount, each.currency, digits_of) for amount in amounts
        )
        cells = (
            each.kind,
            each.currency,
            f"{each.lines:,}",
            file,
            f"{each.entries:,}",
            ledger,
            difference,
        )
        is_equal = (each.lines, each.lines_minor) == (each.entries, each.entries_minor)
        table.add_row(*map(Text, cells), style=None if is_equal else "bold red")
    return table


def _shown(money: Money, digits_of: Mapping[str, int]) -> str:
    return f"{major_units(money.amount_minor, money.currency, digits_of)} {money.currency}"


def _document(options: ReconcileOptions, journal: Journal, found: Reconciliation) -> dict[str, Any]:
    first, last = options.first_day, options.last_day
    return {
        "from": first and f"{first:%Y-%m-%d}",
        "to": last and f"{last:%Y-%m-%d}",
        "topic": journal.topic,
        "ends": dict(sorted(journal.ends.items())),
        "matched": found.matched,
        "differences": [_as_json(each) for each in found.mismatches],
        "totals": found.totals,
    }


def _as_json(mismatch: Mismatch) -> dict[str, Any]:
    row = mismatch.line
    return {
        "difference": mismatch.finding,
        "payment_id": mismatch.payment_id,
        "kind": mismatch.kind,
        "file": {"line": row.number, **_money(row.money)} if row else None,
        "ledger": _entry_as_json(mismatch.entry) if mismatch.entry else None,
    }


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    names = ("entry_id", "event_id", "refund_id", "created", "partition", "offset")
    return {**_money(money_of(entry)), **{name: getattr(entry, name) for name in names}}


def _money(money: Money) -> dict[str, Any]:
    return {"amount_minor": money.amount_minor, "currency": money.currency}


class AmountFormat(msgspec.Struct, frozen=True):
    """How a file writes amounts.

    ``minor`` is true if amounts are in minor units, and ``decimal`` is the file's decimal mark.
    """

    minor: bool = False
    decimal: str | None = None
    digits_of: Mapping[str, int] = MINOR_UNIT_DIGITS

    def read(self, amount: str, currency: str) -> Money:
        """Return the amount in minor units; raise ``MoneyError`` if the amount can't be read."""
        if not self.minor:
            text = plain_amount(amount, self.decimal, self.digits_of.get(currency, 0))
            return Money(minor_units(text, currency, self.digits_of), currency)
        is_number = amount.isascii() and amount.isdigit() and len(amount) <= _MOST_DIGITS
        if not is_number or int(amount) > MAX_AMOUNT_MINOR:
            raise MoneyError(
                "amount_not_integer",
                f"expected digits of minor units, at most {MAX_AMOUNT_MINOR}, got {amount!r:.40}",
            )
        return Money(int(amount), currency)


class _FaultError(ValueError):
    """A fault in a line; ``_lines`` adds the line's number."""


def read_settlement(path: Path, amounts: AmountFormat) -> list[Line]:
    """Return the lines of a UTF-8 file; empty lines and unknown columns are skipped.

    The header shows whether commas or semicolons separate the columns.
    """
    # Spreadsheets put a byte order mark before the first name; `utf-8-sig` removes the mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(_lines(path, file, amounts))


def _lines(path: Path, file: TextIO, amounts: AmountFormat) -> Iterator[Line]:
    rows = csv.reader([], strict=True)
    try:
        first = file.readline()
        delimiter = ";" if first.count(";") > first.count(",") else ","
        rows = csv.reader(chain([first], file), strict=True, delimiter=delimiter)
        header = _checked_header(next(rows, []))
        for cells in rows:
            if cells:
                yield _line(header, cells, rows.line_num, amounts)
    except UnicodeDecodeError as error:
        raise WrongOptionError(f"{path}, after line {rows.line_num}: not UTF-8: {error}") from None
    except (csv.Error, _FaultError) as error:
        raise WrongOptionError(f"{path}, line {max(rows.line_num, 1)}: {error}") from None


def _checked_header(cells: list[str]) -> list[str]:
    header = [name.strip().lower() for name in cells]
    if any(header.count(name) != 1 for name in COLUMNS):
        raise _FaultError(
            f"expected each of the columns {','.join(COLUMNS)} exactly once, got "
            f"{','.join(header)!r:.200}"
        )
    return header


def _line(header: list[str], cells: list[str], number: int, amounts: AmountFormat) -> Line:
    if len(cells) != len(header):
        got = ",".join(cells)
        raise _FaultError(f"expected {len(header)} columns, got {len(cells)}: {got!r:.200}")
    row = dict(zip(header, cells, strict=True))
    # Spaces at the start or the end belong to an id, but are removed from the other values.
    row |= {name: row[name].strip() for name in COLUMNS if name != "payment_id"}
    kind = _KINDS.get(row["kind"].lower())
    if kind is None:
        raise _FaultError(f"kind: expected payment or refund, got {row['kind']!r:.40}")
    if not row["payment_id"]:
        raise _FaultError("payment_id: expected an id, got nothing")
    # Some processors write a refund's amount with a minus sign, but others do not.
    amount = row["amount"].removeprefix("-") if kind == "refund" else row["amount"]
    try:
        return Line(number, row["payment_id"], kind, amounts.read(amount, row["currency"].upper()))
    except MoneyError as error:
        field = "currency" if error.reason.startswith("currency") else "amount"
        raise _FaultError(f"{field}: {error}") from None
