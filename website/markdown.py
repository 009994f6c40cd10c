"""Tables in Markdown for the generated pages.

Input: texts of the program. Output: lines of Markdown. Invariant: no text ends its cell or row.
"""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return an empty line and the table's lines, or no lines if there are no rows."""
    lines = [_row(map(_cell, row)) for row in rows]
    return ["", _row(head), "|---" * len(head) + "|", *lines] if lines else []


def _cell(text: str) -> str:
    """Return a text as one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
