"""Markdown of the generated pages: tables.

In: texts of the program. Out: lines of Markdown. Never: a text that ends its cell or its row.
"""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines, with an empty one before it; none without rows."""
    lines = [_row(map(_cell, row)) for row in rows]
    return ["", _row(head), "|---" * len(head) + "|", *lines] if lines else []


def _cell(text: str) -> str:
    """Return a text as one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
