"""docs/http-api.md says of the views what they are: their paths, and the fields of documents."""

import re
from pathlib import Path

import msgspec

from ledger.orders import OrderDocument, OrderStatus
from ledger.payments import PaymentStatus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http-api.md").read_text()
VIEWS = "".join(file.read_text() for file in (ROOT / "processors" / "views").glob("*.py"))


def test_every_view_is_named():
    declared = re.findall(r'app\.page\([rf]*"([^"]+)"', VIEWS)
    paths = [re.sub(r"\{[^}]*\}", "{id}", path) for path in declared]
    assert len(paths) >= 11
    assert [path for path in paths if f"| `GET {path}` |" not in PAGE] == []


def test_every_error_of_a_view_stands_beside_its_status():
    raised = re.findall(r'ProblemError\(\s*(\d{3}),\s*"(\w+)"', VIEWS)
    assert len(raised) >= 8
    for status, code in raised:
        assert re.search(rf"^\| {status} \|.*`{code}`", PAGE, re.MULTILINE), code


def test_the_example_is_a_document_with_every_field_and_no_other():
    example = PAGE.partition("## Views")[2].partition("```json\n")[2].partition("```")[0]
    document = msgspec.json.decode(example, type=OrderDocument)
    assert msgspec.json.decode(msgspec.json.encode(document)) == msgspec.json.decode(example)


def test_every_status_is_named():
    statuses = {*OrderStatus.__args__, *PaymentStatus.__args__}
    assert [status for status in statuses if f"`{status}`" not in PAGE] == []
