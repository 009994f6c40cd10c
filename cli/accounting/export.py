"""`plexy-ledger export`: the journal in a format that bookkeepers' programs read.

In: settings, a format, and the name of a file or none. Out: the journal, in that file or on
standard output, and what its accounts come to. Never: a file under that name that is not whole; and
never anything else on standard output.
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

from cli.accounting import Format
from cli.accounting.formats import FORMATS
from cli.accounting.journal import Journal, read_journal
from cli.printing import counting, line
from cli.whole_file import appears_whole
from ledger.journal import balances
from ledger.money import major_units
from runtime.kafka.topics import TopicSettings

# A bar that moves with each entry would take as long as the writing itself.
_WRITTEN_AT_A_TIME: Final = 1000


class ExportOptions(msgspec.Struct, frozen=True):
    """How and where to; ``wait_s`` is how long the workers may take to catch up."""

    format: Format
    path: Path | None = None
    wait_s: float = 60.0


def export(environment: Mapping[str, str], options: ExportOptions, console: Console) -> None:
    """Write the journal; say on the console, which is not standard output, what it comes to."""
    settings = TopicSettings.from_environment(environment)
    with _opened(options.path) as file:
        journal = asyncio.run(read_journal(settings, options.wait_s, console))
        _write(journal, options.format, file, console)
    _show(journal, options, console)


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with appears_whole(path) as file:
        yield file


def _write(journal: Journal, kind: Format, file: BinaryIO, console: Console) -> None:
    entries = journal.snapshot.ordered()
    with counting(console, {kind.value: len(entries)}, doing="writing") as heard:
        pieces = FORMATS[kind](entries, journal.origin)
        while some := list(islice(pieces, _WRITTEN_AT_A_TIME)):
            file.write("".join(some).encode("ascii"))
            heard(kind.value, len(some))


def _show(journal: Journal, options: ExportOptions, console: Console) -> None:
    table = Table("account", "currency", "balance")
    table.columns[2].justify = "right"
    sums = balances(journal.snapshot.entries)
    for (account, currency), amount_minor in sorted(sums.items()):
        cells = (account, currency, major_units(amount_minor, currency))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    line(console, f"{journal.origin}, to {options.path or 'standard output'}")
