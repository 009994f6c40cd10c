"""The check accepts a proof that the ledger made, and reports each alteration of a proof."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.deduplication import DAY_MS
from ledger.events import FieldNames, Reading
from ledger.records import Place
from ledger.verification.history import Rules, events_of, facts_of, order_of, steps
from ledger.verification.proof import Proof, check, make
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import documents_of
from tests.ledger.verification.audited import RULES, TRUST, logged
from tests.strategies import histories


def example() -> Proof:
    """Return a proof that was encoded and decoded, like a proof that is read from a file."""
    paid = success("evt_1", 1, 500, order="ord_1")
    events = [failure("evt_0", order="ord_1"), paid, refund("evt_2", 2, 100), paid]
    return msgspec.json.decode(
        msgspec.json.encode(make(logged(events), RULES, "ord_1")), type=Proof
    )


def test_a_proof_is_correct_and_the_check_counts_its_parts():
    checked = check(example(), TRUST)
    assert checked.faults == ()
    assert (checked.deliveries, checked.events, checked.signatures) == (4, 3, 4)
    assert checked.sequences == 6


def test_without_secrets_everything_except_the_signatures_is_checked():
    assert check(example(), None).faults == ()
    assert check(example(), None).signatures is None


@given(st.data())
def test_the_proof_of_every_order_is_correct_for_any_deliveries(data: st.DataObject) -> None:
    history = data.draw(histories(max_size=8))
    records = logged(history)
    for order_id in documents_of(events_of(records, RULES)):
        checked = check(make(records, RULES, order_id), TRUST, sequences=20)
        assert checked.faults == ()


def _altered(proof: Proof, number: int, **more: Any) -> Proof:
    records = list(proof.records)
    records[number] = replace(records[number], **more)
    return replace(proof, records=tuple(records))


def test_an_altered_body_has_a_bad_signature_and_a_different_state():
    proof = example()
    number = next(n for n, each in enumerate(proof.records) if each.key == b"evt_2")
    body = (proof.records[number].value or b"").replace(b"100", b"900")
    faults = check(_altered(proof, number, value=body), TRUST).faults
    assert any("signature_mismatch" in fault for fault in faults)
    assert any("order does not follow" in fault for fault in faults)
    assert any("step" in fault for fault in faults)


def test_an_omitted_delivery_is_noticed():
    proof = example()
    (fault, *more) = check(replace(proof, records=proof.records[1:]), TRUST).faults
    assert "order does not follow" in fault
    assert any("the proof states" in each for each in more)


@pytest.mark.parametrize("part", ["totals", "status"])
def test_an_altered_state_is_reported(part):
    proof = example()
    assert proof.order is not None
    wrong: Any = {"totals": {}, "status": "paid"}[part]
    (fault,) = check(replace(proof, order=replace(proof.order, **{part: wrong})), TRUST).faults
    what, _, fields = fault.partition(": ")
    assert "order does not follow" in what
    assert all(field.startswith(part) for field in fields.split("; "))


def test_an_altered_step_is_reported_by_its_number():
    proof = example()
    wrong = (*proof.steps[:2], replace(proof.steps[2], version=9), *proof.steps[3:])
    (fault,) = check(replace(proof, steps=wrong), TRUST).faults
    assert fault == "step 3 ('evt_2') does not follow: version: 9 is stated, 3 follows"


def test_two_records_at_one_place_are_reported():
    proof = example()
    (fault, *_) = check(replace(proof, records=(*proof.records, proof.records[0])), TRUST).faults
    assert "2 records are at" in fault


def test_a_proof_without_deliveries_is_rejected():
    empty = replace(example(), records=(), steps=(), order=None)
    assert check(empty, TRUST).faults == ("the proof holds no delivery, so it proves nothing",)


def test_an_unknown_format_is_reported():
    (fault,) = check(replace(example(), format="another"), TRUST).faults
    assert "another" in fault


def test_the_rules_of_the_ledger_are_part_of_the_proof():
    events = [success("evt_1", order="ord_1")]
    rules = Rules(reading=Reading(FieldNames(order=("shopOrder",))))
    proof = make(logged(events), rules, "pay_1")
    assert proof.order is not None
    assert check(proof, TRUST, rules).faults == ()
    assert check(replace(proof, rules=RULES), TRUST, RULES).faults


def test_a_proof_with_rules_that_differ_from_the_rules_of_the_ledger_is_reported():
    """With other rules, the author of a proof could hide a refund in spite of good signatures."""
    rules = Rules(reading=Reading(FieldNames(payment=("nowhere",))))
    events = [success("evt_1", order="ord_1"), refund("evt_2", 2, 500)]
    forged = make(logged(events), rules, "ord_1")
    assert forged.order is not None
    assert forged.order.status == "paid"
    (fault,) = check(forged, TRUST).faults
    assert "rules that differ" in fault
    assert "nowhere" in fault


def test_the_first_event_counts_if_a_forgotten_id_was_used_again():
    again = [success("evt_1", order="ord_1"), success("evt_1", amount=7, order="ord_1")]
    proof = make(logged(again, [0, 91 * DAY_MS]), RULES, "ord_1")
    checked = check(proof, TRUST)
    assert (checked.faults, checked.events) == ((), 2)


def test_if_there_are_many_events_only_some_sequences_are_drawn_and_checked():
    events = [success("evt_1", order="ord_1")]
    events += [refund(f"evt_r{n}", n, 1, refund_id=f"re_{n}") for n in range(20)]
    checked = check(make(logged(events), RULES, "ord_1"), TRUST, sequences=50)
    assert (checked.faults, checked.sequences) == ((), 50)


def test_the_proof_of_a_large_order_holds_although_its_document_lists_only_two_payments():
    names = [f"pay_{n}_{'x' * 480}" for n in range(400)]
    events = [
        success(f"evt_{n}", n + 1, 5, payment=name, order="ord_1") for n, name in enumerate(names)
    ]
    proof = make(logged(events), RULES, "ord_1")
    assert proof.order is not None
    assert len(proof.order.payments) == 2
    checked = check(proof, TRUST)
    assert checked.faults == ()
    assert 0 < checked.sequences < 720
    assert [step.version for step in proof.steps] == list(range(1, 401))


@given(st.data())
def test_each_step_states_the_order_after_the_deliveries_up_to_the_step(
    data: st.DataObject,
) -> None:
    records = logged(data.draw(histories(max_size=8)))
    by_place = {Place(each.partition, each.offset): each for each in records}
    for order_id in documents_of(events_of(records, RULES)):
        arrived = []
        for step in steps(records, RULES, order_id):
            arrived.append(by_place[step.place])
            order = order_of(facts_of(arrived, RULES), order_id)
            if order is None:
                assert (step.version, step.status, step.totals) == (0, None, {})
            else:
                assert (step.version, step.status) == (order.version, order.status)
                assert (step.totals, step.anomalies) == (order.totals, order.anomalies)
