"""docs/http-api.md says of the views what they are: their paths, and the fields of documents."""

import re
from pathlib import Path

import msgspec

from ledger.orders import OrderDocument, OrderStatus
from ledger.payments import PaymentStatus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http-api.md").read_text()
VIEWS = (ROOT / "processors" / "views.py").read_text()


def test_every_view_is_named():
    paths = re.findall(r'app\.page\(r?"([^"{]+)', VIEWS)
    assert len(paths) >= 4
    assert [path for path in paths if f"| `GET {path}" not in PAGE] == []


def test_the_example_is_a_document_with_every_field_and_no_other():
    example = PAGE.partition("## Views")[2].partition("```json\n")[2].partition("```")[0]
    document = msgspec.json.decode(example, type=OrderDocument)
    assert msgspec.json.decode(msgspec.json.encode(document)) == msgspec.json.decode(example)


def test_every_status_is_named():
    statuses = {*OrderStatus.__args__, *PaymentStatus.__args__}
    assert [status for status in statuses if f"`{status}`" not in PAGE] == []
