"""Tables in Markdown for the generated pages.

Input: the text of each cell. Output: lines of Markdown. Invariant: a line break or a `|` in a text
never ends the cell or the row.
"""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return an empty line and the table's lines, or no lines if there are no rows."""
    lines = [_row(map(_cell, row)) for row in rows]
    return ["", _row(head), "|---" * len(head) + "|", *lines] if lines else []


def _cell(text: str) -> str:
    """Return a text as the content of a cell: on one line, with each `|` escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
