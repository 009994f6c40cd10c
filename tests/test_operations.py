"""docs/operations.md says of each difference and each rejection what it means and what to do."""

from pathlib import Path

import pytest

from ledger.differences import Kind
from ledger.rejections import Reason

_PAGE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("kind", [*Kind, *Reason])
def test_every_difference_and_reason_has_a_line_with_its_remedy(kind):
    rows = [line.split("|") for line in _PAGE.splitlines() if line.startswith("| `")]
    (row,) = [row for row in rows if f"`{kind}`" in row[1]]
    assert all(cell.strip() for cell in row[1:4])
