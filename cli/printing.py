"""What commands print: lines that are safe to print, and bars that count records.

In: texts that may hold anything, counts as they grow. Out: lines and bars on a console. Never: a
control character from outside, and never a bar where there is no terminal.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

Heard = Callable[[str, int], None]
"""Hears of each name how many records more were dealt with."""


def plain(text: str) -> str:
    r"""Return a text as one line, whatever is in it: ids come from outside, and may hold anything.

    >>> print(plain("evt_1\nNo difference"))
    evt_1\nNo difference
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is: without wrapping, markup or control characters."""
    console.print(Text(plain(text), style=style), soft_wrap=True)


def counted(number: int, one: str, several: str = "") -> str:
    """Say how many there are; several of most things end with an s.

    >>> counted(1, "payment"), counted(1200, "payment"), counted(0, "entry", "entries")
    ('1 payment', '1,200 payments', '0 entries')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


@contextmanager
def counting(
    console: Console, totals: Mapping[str, int], doing: str = "reading"
) -> Iterator[Heard]:
    """Show a bar and a rate for each name while the block runs; nothing without a terminal."""
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = {
            name: bars.add_task(f"{doing} {name}", total=total, start=False, rate="")
            for name, total in totals.items()
        }
        done, started = Counter[str](), dict[str, float]()

        def heard(name: str, records: int) -> None:
            since = started.setdefault(name, time.monotonic())
            bars.start_task(tasks[name])
            done[name] += records
            rate = f"{done[name] / max(time.monotonic() - since, 0.001):,.0f}/s"
            # What is read may have grown meanwhile.
            total = max(totals[name], done[name])
            bars.update(tasks[name], completed=done[name], total=total, rate=rate)

        yield heard
