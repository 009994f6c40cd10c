"""If the workers check signatures, a record that has no good signature does not count.

Deduplication, ``Truth``, and the history of an order all follow this rule.
"""

from typing import Any

import pytest

from ledger.deduplication import deduplicate
from ledger.rejections import Reason
from ledger.trust import MAX_HEADERS
from ledger.verification.history import Rules, as_of, deliveries, events_of, steps
from ledger.verification.proof import check, make
from ledger.verification.truth import Truth
from tests.ledger.examples import success
from tests.ledger.verification.audited import READING, TRUST, Log, body_of, partition_of

SIGNED_ONLY = Rules(signed_only=True)
PAID = success("evt_1", 1, 500, payment="pay_1", order="ord_1")
FORGED = success("evt_1", 1, 999_999, payment="pay_1", order="ord_1")


def forged_first() -> list[Any]:
    """Return a log in which a forged record precedes the event with the same id."""
    log = Log()
    log.append(body_of(FORGED), b"evt_1", secret=b"whsec_test_key_guessed")
    log.append(body_of(PAID), b"evt_1")
    return log.partitions[partition_of(b"evt_1")]


def test_a_forged_record_is_rejected_and_does_not_take_the_place_of_the_event():
    result = deduplicate(forged_first(), {}, READING, trust=TRUST)
    assert [event.money.amount_minor for event in result.events] == [500]
    assert result.outcomes == ["rejected.signature_refused", "folded"]
    (rejected,) = result.rejected
    assert (rejected.event_id, rejected.rejection.reason) == ("evt_1", Reason.SIGNATURE_REFUSED)
    assert "signature_mismatch" in rejected.rejection.detail


def test_if_only_ingress_checks_signatures_the_first_record_counts():
    assert [e.money.amount_minor for e in deduplicate(forged_first(), {}, READING).events] == [
        999_999
    ]


@pytest.mark.parametrize("enforced", [TRUST, None])
def test_truth_folds_like_the_workers_and_reports_bad_signatures_that_the_workers_accept(enforced):
    truth = Truth(READING, TRUST, partition_of, enforced=enforced)
    truth.read(partition_of(b"evt_1"), forged_first())
    (fact,) = truth.facts["pay_1"].values()
    assert fact.money.amount_minor == (500 if enforced else 999_999)
    assert truth.counts["signatures_bad"] == 1
    assert [fault.kind for fault in truth.faults] == ([] if enforced else ["signature_invalid"])


def test_the_history_and_the_proof_of_an_order_follow_the_same_rule():
    records = forged_first()
    assert events_of(records, SIGNED_ONLY, TRUST) == events_of(records[1:], SIGNED_ONLY, TRUST)
    outcomes = [each.outcome for each in deliveries(records, SIGNED_ONLY, TRUST)]
    assert outcomes == ["signature_refused", "folded"]
    assert [each.version for each in steps(records, SIGNED_ONLY, "ord_1", TRUST)] == [0, 1]
    order = as_of(records, SIGNED_ONLY, "ord_1", 10**15, TRUST)
    assert order is not None
    assert order.totals["KZT"].paid == 500
    assert make(records[1:], SIGNED_ONLY, "ord_1", TRUST).order == order


def test_a_proof_states_whether_unsigned_deliveries_count_and_different_rules_are_a_fault():
    proof = make(forged_first()[1:], SIGNED_ONLY, "ord_1", TRUST)
    assert check(proof, TRUST, SIGNED_ONLY).faults == ()
    (fault,) = check(proof, TRUST, Rules()).faults
    assert "only signed deliveries count" in fault


@pytest.mark.parametrize("headers", [[("plexy-signature", None)], [("received-at-ms", None)], []])
def test_a_header_that_has_no_value_is_a_fault_and_raises_no_error(headers):
    (record, _) = forged_first()
    record.headers = [*record.headers, *headers]
    assert TRUST.fault(record) is not None


def test_headers_beyond_the_limit_are_ignored():
    (_, record) = forged_first()
    signed, many = record.headers, [("x", b"")] * MAX_HEADERS
    record.headers = [*signed, *many]
    assert TRUST.fault(record) is None
    record.headers = [*many, *signed]
    assert TRUST.fault(record) == "arrival_unknown"
