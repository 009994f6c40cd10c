"""Prints the findings of an audit: balances as a table, differences and events as lines.

A long list is cut, and the left-out lines are counted. After the list, the remedy for each kind of
difference is printed.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.printing import counted, line, plain
from ledger.payment_documents import EventReference
from ledger.verification.differences import Difference
from ledger.verification.journal_audit import AuditedBalance
from ledger.verification.remedies import REMEDIES

# Differences above this number are only counted. The differences that one record causes nearly
# always fit in this many lines, so a longer list would not help to find the cause.
_MOST_SHOWN: Final = 100
_MOST_EVENTS_SHOWN: Final = 10


def show_balances(
    console: Console, balances: Sequence[AuditedBalance], title: str = "Trial balance"
) -> None:
    """Print the balance of each account; an account that differs from the log is red."""
    table = Table("account", "currency", "journal", "log", title=f"{title}, in minor units")
    table.columns[2].justify = table.columns[3].justify = "right"
    for each in balances:
        style = None if each.journal == each.log else "bold red"
        cells = (each.account, each.currency, f"{each.journal:,}", f"{each.log:,}")
        table.add_row(*(Text(plain(cell)) for cell in cells), style=style)
    console.print(table)


def show_differences(console: Console, differences: Sequence[Difference]) -> None:
    """Print each difference with its events, then each kind's remedy, then the total number."""
    for found in differences[:_MOST_SHOWN]:
        line(console, str(found))
        show_events(console, found.events)
    if len(differences) > _MOST_SHOWN:
        kinds = Counter(str(found.kind) for found in differences[_MOST_SHOWN:])
        rest = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        line(console, f"… and {len(differences) - _MOST_SHOWN} more: {rest}")
    for kind in sorted({found.kind for found in differences}):
        line(console, f"{kind}: {REMEDIES[kind].meaning} {REMEDIES[kind].action}")
    if differences:
        line(console, counted(len(differences), "difference"), "bold red")
    else:
        line(console, "No difference", "bold green")


def show_events(console: Console, events: Sequence[EventReference]) -> None:
    """Print events with their places in the log."""
    for event in events[:_MOST_EVENTS_SHOWN]:
        place = f"partition {event.partition}, offset {event.offset}"
        line(console, f"    {event.event_id}  {event.type}  {place}")
    if len(events) > _MOST_EVENTS_SHOWN:
        line(console, f"    … and {counted(len(events) - _MOST_EVENTS_SHOWN, 'more event')}")
