"""Writes the journal for accounting programs: the command ``export``.

The journal goes to a file or to standard output, and the accounts' balances go to standard error.
The file receives its final name only after it is complete.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.accounting import JournalFormat
from cli.accounting.formats import FORMATS
from cli.accounting.journal import Journal, read_journal
from cli.printing import counting, line
from cli.settings import AccountingSettings
from cli.whole_file import appears_whole
from ledger.journal import balances
from ledger.money import major_units

# Advancing the progress bar for every entry would take as long as writing the entries.
_BATCH_ENTRIES: Final = 1000


class ExportOptions(msgspec.Struct, frozen=True):
    """The options of ``export``; ``wait_s`` limits the wait for the workers to catch up."""

    format: JournalFormat
    path: Path | None = None
    wait_s: float = 60.0


def export(environment: Mapping[str, str], options: ExportOptions, console: Console) -> None:
    """Write the journal, and show the balances on the console.

    The console must not write to standard output, which may receive the journal.
    """
    settings = AccountingSettings.from_environment(environment)
    with _opened(options.path) as file:
        journal = asyncio.run(read_journal(settings, options.wait_s, console))
        _write(journal, options.format, file, console, settings.minor_units.digits_of)
    _show(journal, options, console, settings.minor_units.digits_of)


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with appears_whole(path) as file:
        yield file


def _write(
    journal: Journal,
    kind: JournalFormat,
    file: BinaryIO,
    console: Console,
    digits_of: Mapping[str, int],
) -> None:
    entries = journal.snapshot.ordered()
    with counting(console, {kind.value: len(entries)}, doing="writing") as count:
        pieces = FORMATS[kind](entries, journal.origin, digits_of)
        while batch := list(islice(pieces, _BATCH_ENTRIES)):
            file.write("".join(batch).encode("ascii"))
            count(kind.value, len(batch))


def _show(
    journal: Journal, options: ExportOptions, console: Console, digits_of: Mapping[str, int]
) -> None:
    table = Table("account", "currency", "balance")
    table.columns[2].justify = "right"
    sums = balances(journal.snapshot.entries)
    for (account, currency), amount_minor in sorted(sums.items()):
        cells = (account, currency, major_units(amount_minor, currency, digits_of))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    line(console, f"{journal.origin}, to {options.path or 'standard output'}")
