"""Prints lines without control characters, and progress bars that count records.

If there is no terminal, no bars are shown.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

Heard = Callable[[str, int], None]
"""A function that receives a name and the number of records processed since its last call."""


def plain(text: str) -> str:
    r"""Return a text as one line without control characters; ids from outside may contain them.

    >>> print(plain("evt_1\nNo difference"))
    evt_1\nNo difference
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(console: Console, text: str, style: str = "") -> None:
    """Print a text as one line, without wrapping, markup or control characters."""
    console.print(Text(plain(text), style=style), soft_wrap=True)


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun; the plural ends in s unless ``several`` is given.

    >>> counted(1, "payment"), counted(1200, "payment"), counted(0, "entry", "entries")
    ('1 payment', '1,200 payments', '0 entries')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


@contextmanager
def counting(
    console: Console, totals: Mapping[str, int], doing: str = "reading"
) -> Iterator[Heard]:
    """Show a bar and a rate for each name during the block, if there is a terminal."""
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

        def count(name: str, records: int) -> None:
            since = started.setdefault(name, time.monotonic())
            bars.start_task(tasks[name])
            done[name] += records
            rate = f"{done[name] / max(time.monotonic() - since, 0.001):,.0f}/s"
            # The source may have received records after its total was counted.
            total = max(totals[name], done[name])
            bars.update(tasks[name], completed=done[name], total=total, rate=rate)

        yield count
