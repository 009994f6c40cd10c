"""With the rule set ``SEED``, the published bytes equal the bytes in ``golden_seed.jsonl``.

The last release that had no rule sets wrote this file: the document of an order, and then the
order's entries.
"""

from pathlib import Path

from ledger.wire import ENTRIES, ORDER_DOCUMENTS
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import Pipeline

GOLDEN = (Path(__file__).parent / "golden_seed.jsonl").read_bytes().splitlines()


def test_the_bytes_that_are_published_with_the_rule_set_seed_have_not_changed():
    pipeline = Pipeline()
    events = [
        failure("evt_f", 1, order="ord/1"),
        success("evt_2", 5, order="ord/1", offset=7),
        refund("evt_r", 9, 120, offset=8),
        refund("evt_q", 8, 130, offset=9),
        success("evt_1", 4, 480, order="ord/1", offset=3),
        refund("evt_x", 10, 7, refund_id="re_2", currency="USD"),
    ]
    pipeline.fold([events])
    documents = [ORDER_DOCUMENTS.encode(each) for each in pipeline.documents().values()]
    entries = [ENTRIES.encode(each) for each in pipeline.entries.values()]
    assert [*documents, *entries] == GOLDEN
