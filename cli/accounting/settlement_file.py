"""Reads a settlement file: CSV with a header, what a processor says that it took in and gave back.

In: a file, and whether its amounts are minor units. Out: its lines. Never: a value that is guessed
at: ``WrongOptionError`` names the file, the line, the column and the value.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cli.errors import WrongOptionError
from ledger.accounting.settlement import Kind, Line
from ledger.money import MAX_AMOUNT_MINOR, Money, MoneyError, minor_units

COLUMNS: Final = ("payment_id", "amount", "currency", "kind")
_KINDS: Final[dict[str, Kind]] = {"payment": "payment", "refund": "refund"}
# Longer than any amount; thousands of digits would take long to read.
_MOST_DIGITS: Final = 30


class _FaultError(ValueError):
    """What is wrong in a line, without its place; never leaves this module."""


def read_settlement(path: Path, *, minor: bool) -> list[Line]:
    """Return all lines of a file in UTF-8; empty ones are passed over, and so are other columns."""
    # A byte order mark, which spreadsheets put before the first name, is no part of it.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(_lines(path, file, minor=minor))


def _lines(path: Path, file: Iterable[str], *, minor: bool) -> Iterator[Line]:
    rows = csv.reader(file, strict=True)
    try:
        header = _checked_header(next(rows, []))
        for cells in rows:
            if cells:
                yield _line(header, cells, rows.line_num, minor=minor)
    except UnicodeDecodeError as error:
        raise WrongOptionError(f"{path}, after line {rows.line_num}: not UTF-8: {error}") from None
    except (csv.Error, _FaultError) as error:
        raise WrongOptionError(f"{path}, line {max(rows.line_num, 1)}: {error}") from None


def _checked_header(header: list[str]) -> list[str]:
    if any(header.count(name) != 1 for name in COLUMNS):
        raise _FaultError(
            f"expected each of the columns {','.join(COLUMNS)} once, got {','.join(header)!r:.200}"
        )
    return header


def _line(header: list[str], cells: list[str], number: int, *, minor: bool) -> Line:
    if len(cells) != len(header):
        got = ",".join(cells)
        raise _FaultError(f"expected {len(header)} columns, got {len(cells)}: {got!r:.200}")
    row = dict(zip(header, cells, strict=True))
    kind = _KINDS.get(row["kind"])
    if kind is None:
        raise _FaultError(f"kind: expected payment or refund, got {row['kind']!r:.40}")
    if not row["payment_id"]:
        raise _FaultError("payment_id: expected an id, got nothing")
    # Some processors give what they took back a minus, and some leave that to the kind.
    amount = row["amount"].removeprefix("-") if kind == "refund" else row["amount"]
    try:
        return Line(number, row["payment_id"], kind, _money(amount, row["currency"], minor=minor))
    except MoneyError as error:
        field = "currency" if error.reason.startswith("currency") else "amount"
        raise _FaultError(f"{field}: {error}") from None


def _money(amount: str, currency: str, *, minor: bool) -> Money:
    if not minor:
        return Money(minor_units(amount, currency), currency)
    is_number = amount.isascii() and amount.isdigit() and len(amount) <= _MOST_DIGITS
    if not is_number or int(amount) > MAX_AMOUNT_MINOR:
        raise MoneyError(
            "amount_not_integer",
            f"expected digits of minor units, at most {MAX_AMOUNT_MINOR}, got {amount!r:.40}",
        )
    return Money(int(amount), currency)
