"""Each rejected item is listed once, and a retry writes the same event that a fold produces.

A retry puts an item back: it writes the item's event or delivery, and closes the item.
"""

import json
from typing import Any, NamedTuple

import pytest

from ledger.deduplication import deduplicate
from ledger.envelope import Envelope, decode_envelope
from ledger.events import Event, FieldNames, Reading
from ledger.quarantine import (
    Quarantine,
    Refusal,
    Source,
    is_delivery,
    judge_delivery,
    judge_logged,
)
from ledger.rejected import put_back_record, rejected_record
from ledger.rejections import Reason, Rejection
from ledger.signature import sign
from ledger.topics import TopicNames
from ledger.trust import Trust

READING = Reading(FieldNames(payment=("paymentId",)))
OLD_READING = Reading(FieldNames(payment=("payment_id", "paymentId")))


class Kept(NamedTuple):
    key: bytes
    value: bytes
    headers: Any
    partition: int = 0
    offset: int = 0
    timestamp: int = 1000


def rejection(reason: Reason) -> Rejection:
    return Rejection(reason=reason, detail="why", field="data.x")


def kept(
    offset: int,
    body: bytes = b"{}",
    source: int | None = 118,
    reason: Reason = Reason.CURRENCY_UNKNOWN,
    event_id: str | None = "evt_1",
    **more: Any,
) -> Kept:
    place = ("plexy.webhooks", 2, source) if source is not None else None
    key, value, headers = rejected_record(body, rejection(reason), event_id, place)
    if source is None:
        headers = [*headers, ("source-topic", b"http")]
    return Kept(key, value, headers, offset=offset, **more)


def marked(record: Kept, offset: int, to: str = "ledger.events/0/7") -> Kept:
    mark = put_back_record(record.key, record.value, record.headers, to, 5000)
    return Kept(*mark, offset=offset, timestamp=5000)


def read(*records: Kept, version: int = 1) -> Quarantine:
    quarantine = Quarantine(TopicNames(version=version))
    quarantine.read(records)
    return quarantine


def test_a_rejection_that_was_written_twice_is_one_item():
    item = read(kept(3), kept(9, timestamp=2000)).items["plexy.webhooks/2/118"]
    assert (item.times, item.kept, item.at_ms, item.is_open) == (2, (0, 3), 1000, True)
    assert item.source == Source("plexy.webhooks", 2, 118)
    assert (item.reason, item.detail, item.key) == ("currency_unknown", "why", b"evt_1")


def test_two_deliveries_are_one_item_only_if_their_bytes_are_equal():
    quarantine = read(kept(0, b"x", None), kept(1, b"x", None, timestamp=2000), kept(2, b"y", None))
    assert sorted(item.times for item in quarantine.items.values()) == [1, 2]
    assert all(item_id.startswith("http/") for item_id in quarantine.items)
    assert all(is_delivery(item) for item in quarantine.items.values())


def test_an_item_that_was_put_back_is_closed_until_it_is_rejected_again():
    first = kept(0)
    quarantine = read(first)
    assert quarantine.items["plexy.webhooks/2/118"].is_open
    quarantine.read([marked(first, 1)])
    item = quarantine.items["plexy.webhooks/2/118"]
    assert item.put_back == ("ledger.events/0/7", 5000, False)
    assert (item.reason, item.times) == ("currency_unknown", 1)
    # If a release that cannot read this event folds the whole log, it rejects the item again.
    quarantine.read([kept(2, reason=Reason.ID_MISSING)])
    item = quarantine.items["plexy.webhooks/2/118"]
    assert (item.is_open, item.reason, item.times, item.kept) == (True, "id_missing", 2, (0, 0))


def test_an_item_that_was_put_back_for_one_version_is_still_open_for_other_versions():
    first = kept(0)
    for_one, for_two = marked(first, 1), marked(first, 2, "ledger.events.v2/1/3")

    def is_open(version: int, *marks: Kept) -> bool:
        return read(first, *marks, version=version).items["plexy.webhooks/2/118"].is_open

    assert [is_open(version, for_one) for version in (1, 2)] == [False, True]
    assert [is_open(version, for_two) for version in (1, 2)] == [True, False]
    assert [is_open(version, for_one, for_two) for version in (1, 2, 3)] == [False, False, True]


def test_an_item_that_was_put_back_into_the_log_is_closed_for_every_version():
    refused = kept(0, b"x", None)
    mark = marked(refused, 1, "plexy.webhooks/2/118")
    for version in (1, 2):
        (item,) = read(refused, mark, version=version).items.values()
        assert item.put_back == ("plexy.webhooks/2/118", 5000, False)


def test_the_record_that_marks_an_item_as_put_back_names_the_source_but_no_reason():
    record = kept(0)
    key, body, headers = put_back_record(record.key, record.value, record.headers, "t/0/1", 7)
    assert (key, body) == (record.key, record.value)
    assert headers == [
        ("source-topic", b"plexy.webhooks"),
        ("source-partition", b"2"),
        ("source-offset", b"118"),
        ("put-back-to", b"t/0/1"),
        ("put-back-at-ms", b"7"),
    ]


def test_items_are_sorted_by_time_and_then_by_their_places_in_the_log():
    quarantine = read(
        kept(0, source=9, timestamp=3), kept(1, source=2, timestamp=3), kept(2, source=5)
    )
    assert [item.source.offset for item in quarantine.ordered()] == [2, 9, 5]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("source-topic", b"\xff\n"), ("source-partition", "²".encode()), ("source-offset", b"1")],
        [("source-topic", b"t"), ("source-partition", b"1"), ("source-offset", b"9" * 30)],
        [("reason", b"\xff"), ("put-back-at-ms", b"soon")],
        [("reason", None), ("body-bytes", b"many"), ("body-sha256", None)],
    ],
)
def test_a_record_of_another_program_is_an_item_that_has_no_known_place(headers):
    quarantine = read(Kept(None, None, headers), Kept(None, b"x", headers))  # type: ignore[arg-type]
    assert len(quarantine.items) == 2
    assert all(item.source is None and item.is_open for item in quarantine.items.values())
    assert not any(is_delivery(item) for item in quarantine.items.values())


def test_an_item_from_another_program_takes_little_memory():
    long = [("detail", b"x" * 10**6), ("source-topic", b"y" * 10**6)]
    (item,) = read(Kept(b"k" * 10**6, b"", long)).items.values()
    assert len(item.key) + len(item.detail) + len(item.id) + len(item.origin) < 20_000


def test_an_earlier_open_item_of_the_same_event_must_be_put_back_first():
    first, later = kept(0, source=5), kept(1, source=9)
    quarantine = read(later, first)
    item = quarantine.items["plexy.webhooks/2/9"]
    assert quarantine.before(item) == quarantine.items["plexy.webhooks/2/5"]
    assert quarantine.before(quarantine.items["plexy.webhooks/2/5"]) is None
    quarantine.read([marked(first, 2)])
    assert quarantine.before(item) is None


class Logged(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Any = ()
    partition: int = 2
    offset: int = 118
    timestamp: int = 1_700_000_000_000


def body(**data: Any) -> bytes:
    content = {"id": "pay_1", "amount": 5, "currency": "KZT", **data}
    event = {"id": "evt_1", "type": "refund.succeeded", "created": 1_700_000_000, "data": content}
    return json.dumps(event).encode()


TOO_LONG = body(payment_id="x" * 600, paymentId="pay_9")


def judged(record: Logged | None, reading: Reading = READING, **more: Any) -> Event | Refusal:
    value = record.value if record is not None else b""
    item = read(kept(0, value or b"", **more)).items["plexy.webhooks/2/118"]
    return judge_logged(item, value or b"", record, reading)


def test_an_item_is_put_back_as_the_event_that_a_fold_of_the_log_produces():
    record = Logged(b"evt_1", TOO_LONG)
    assert [each.rejection.reason for each in deduplicate([record], {}, OLD_READING).rejected] == [
        Reason.REFERENCE_TOO_LONG
    ]
    event = judged(record)
    assert [event] == deduplicate([record], {}, READING).events
    assert (event.partition, event.offset, event.payment_reference) == (2, 118, "pay_9")


def test_an_item_that_would_be_rejected_again_stays_open_and_the_new_reason_is_reported():
    assert judged(Logged(b"evt_1", TOO_LONG), OLD_READING).why.startswith(
        "it is still rejected: reference_too_long: data.payment_id"
    )


@pytest.mark.parametrize("reason", [Reason.EVENT_ID_REUSED, Reason.KEY_MISMATCH])
def test_an_item_rejected_for_a_reused_id_or_a_wrong_key_is_never_put_back(reason):
    assert "this was a decision" in judged(Logged(b"evt_1", TOO_LONG), reason=reason).why


@pytest.mark.parametrize(
    "reason", [Reason.MALFORMED_JSON, Reason.INVALID_ENVELOPE, Reason.CONTROL_CHARACTERS]
)
def test_a_record_that_could_not_be_read_as_an_event_counts_only_after_a_rebuild(reason):
    verdict = judged(Logged(b"evt_1", TOO_LONG), reason=reason, event_id=None)
    assert "plexy-ledger rebuild" in verdict.why


def test_an_event_with_a_bad_reference_is_put_back_if_the_reference_is_no_longer_read():
    """``CONTROL_CHARACTERS`` is also the reason for a bad event id, but this event's id is valid.

    So the deduplication has already recorded the id.
    """
    odd = body(payment_id="pay_\0", paymentId="pay_9")
    record = Logged(b"evt_1", odd)
    (rejected,) = deduplicate([record], {}, OLD_READING).rejected
    assert rejected.rejection.reason is Reason.CONTROL_CHARACTERS
    event = judged(record, reason=Reason.CONTROL_CHARACTERS)
    assert [event] == deduplicate([record], {}, READING).events


def test_different_bytes_at_the_place_of_an_item_are_not_put_back():
    item = read(kept(0, TOO_LONG)).items["plexy.webhooks/2/118"]
    for record in (None, Logged(b"evt_1", body()), Logged(b"evt_1", None)):
        verdict = judge_logged(item, TOO_LONG, record, READING)
        assert verdict == Refusal("the log does not have these bytes at plexy.webhooks/2/118")


def test_if_only_the_log_has_the_bytes_they_are_identified_by_their_digest():
    key, value, headers = rejected_record(
        TOO_LONG,
        rejection(Reason.REFERENCE_TOO_LONG),
        "evt_1",
        ("plexy.webhooks", 2, 118),
        keep_bytes=10,
    )
    item = read(Kept(key, value, headers)).items["plexy.webhooks/2/118"]
    record = Logged(b"evt_1", TOO_LONG)
    assert [judge_logged(item, value, record, READING)] == deduplicate([record], {}, READING).events
    for other in (None, Logged(b"evt_1", body()), Logged(b"evt_1", b"")):
        verdict = judge_logged(item, value, other, READING)
        assert verdict == Refusal("the log does not have these bytes at plexy.webhooks/2/118")
    mark = put_back_record(key, value, headers, "ledger.events/0/7", 5)
    quarantine = read(Kept(key, value, headers), Kept(*mark, offset=1))
    assert not quarantine.items["plexy.webhooks/2/118"].is_open


def test_an_event_of_a_type_that_is_no_longer_folded_is_not_put_back():
    other = TOO_LONG.replace(b"refund.succeeded", b"refund.disputed")
    assert judged(Logged(b"evt_1", other)) == Refusal("events of its type are kept, but not folded")


def delivery(value: bytes, secret: bytes = b"whsec_test_key_now", arrived_s: int = 1000) -> Logged:
    signature = sign(value, secret, 1000).encode()
    arrived = b"%d" % (arrived_s * 1000)
    headers = [("plexy-signature", signature), ("received-at-ms", arrived)]
    return Logged(b"k", value, headers, 0, 0)


TRUST = Trust(secrets=(b"whsec_test_key_now",))


def test_a_signature_is_checked_against_the_time_of_the_deliverys_arrival():
    assert judge_delivery(delivery(body()), TRUST) == decode_envelope(body())
    late = judge_delivery(delivery(body(), arrived_s=2000), TRUST)
    assert late == Refusal("its signature is not good: timestamp_out_of_tolerance")
    forged = judge_delivery(delivery(body(), b"whsec_test_key_guessed"), TRUST)
    assert forged == Refusal("its signature is not good: signature_mismatch")
    assert isinstance(judge_delivery(delivery(body(), b"whsec_test_key_guessed"), None), Envelope)


def test_a_delivery_that_is_still_not_an_event_is_not_put_back():
    assert judge_delivery(delivery(b"{}"), TRUST).why.startswith(
        "it is still rejected: invalid_envelope"
    )
