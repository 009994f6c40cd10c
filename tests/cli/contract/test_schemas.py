"""The files in docs/events match the types, and every folded record matches its schema."""

import msgspec
import pytest
from hypothesis import given
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError

from cli.contract.__main__ import FOLDER, RELEASED, contract
from cli.contract.schemas import VERSIONS, schema_file, schema_of
from ingest.records import DeliveryHead, rejected_delivery_record
from ledger.events import Event
from ledger.lifecycle import Kind
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.orders import describe, fold_orders
from ledger.payments import fold_payments
from ledger.rejected import put_back_record, rejected_record
from ledger.rejections import Reason, Rejection
from ledger.topics import TopicNames
from tests.cli.contract.validation import reader, texts, writer
from tests.ledger.lifecycle_events import lifecycles
from tests.strategies import histories

ORDERS, ENTRIES, REJECTED = (writer(topic) for topic in VERSIONS)


def as_json(value: msgspec.Struct) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_the_files_match_the_types():
    files = {file.name: file.read_bytes() for file in FOLDER.glob("*.json")}
    assert files == contract(), "run `make contract`, and review its changes"


@pytest.mark.parametrize("topic", VERSIONS)
def test_a_schema_is_valid_in_its_own_json_schema_draft_and_in_the_draft_of_asyncapi(topic):
    schema = schema_of(topic)
    Draft202012Validator.check_schema(schema)
    Draft7Validator.check_schema(schema)
    assert schema["$id"] == f"urn:plexy-ledger:{topic}:v{VERSIONS[topic]}"


@pytest.mark.parametrize("topic", VERSIONS)
def test_every_field_has_a_description(topic):
    schema = schema_of(topic)
    fields = [
        (name, field)
        for part in [schema, *schema["$defs"].values()]
        for name, field in part.get("properties", {}).items()
    ]
    assert len(fields) >= 8
    assert [name for name, field in fields if not field.get("description")] == []


@given(histories() | lifecycles())
def test_every_folded_document_and_entry_matches_its_schema(events):
    folded = fold_payments(events, {})
    documents = map(describe, fold_orders(folded.snapshots, {}).values())
    for document in documents:
        if document is not None:
            ORDERS.validate(as_json(document))
    for entry in folded.entries:
        ENTRIES.validate(as_json(entry))


def test_ids_and_amounts_at_their_limits_match_the_schema_and_a_sum_may_exceed_64_bits():
    largest, longest = Money(MAX_AMOUNT_MINOR, "KZT"), "é" * 256
    events = [
        Event(
            f"{n:0>512}", "payment.succeeded", MAX_AMOUNT_MINOR, f"p{n}", largest, None, longest,
            None, 0, n, Kind.SUCCEEDED,
        )
        for n in range(2050)
    ]  # fmt: skip
    folded = fold_payments(events, {})
    document = describe(fold_orders(folded.snapshots, {})[longest])
    assert document is not None
    written = as_json(document)
    ORDERS.validate(written)
    assert written["totals"]["KZT"]["paid"] == 2050 * MAX_AMOUNT_MINOR > 2**64
    for entry in folded.entries:
        ENTRIES.validate(as_json(entry))


def test_a_reader_ignores_an_unknown_field_but_a_writer_must_not_add_one():
    posted = fold_payments([fact()], {}).entries[0]
    more = {**as_json(posted), "note": "new"}
    reader("ledger.entries").validate(more)
    with pytest.raises(ValidationError, match="note"):
        ENTRIES.validate(more)


@pytest.mark.parametrize(
    ("field", "value"),
    [("entry_id", ""), ("created", -1), ("offset", 1.5), ("postings", []), ("payment_id", None)],
)
def test_an_entry_that_no_fold_produces_does_not_match_the_schema(field, value):
    posted = as_json(fold_payments([fact()], {}).entries[0])
    with pytest.raises(ValidationError):
        ENTRIES.validate({**posted, field: value})


@pytest.mark.parametrize("source", [("plexy.webhooks", 3, 118), None])
def test_a_rejection_and_the_record_that_marks_it_as_put_back_have_valid_headers(source):
    rejection = Rejection(reason=Reason.AMOUNT_MISSING, detail="data.amount: it is missing")
    key, body, headers = rejected_record(b"{}", rejection, "evt_1", source)
    if source is None:
        delivery = DeliveryHead(b"t=1,v1=00", b"application/json", None, 1_767_225_600_000)
        headers = rejected_delivery_record(TopicNames(), delivery, body, rejection, None).headers
    REJECTED.validate(texts(headers))
    *_, back = put_back_record(key, body, headers, "ledger.events/1/7", 1_767_225_600_001)
    REJECTED.validate(texts(back))
    with pytest.raises(ValidationError):
        REJECTED.validate(texts(back[:-1]))


def test_the_name_of_a_schema_file_contains_the_topic_and_the_version():
    assert {schema_file(topic) for topic in VERSIONS} <= {f.name for f in FOLDER.iterdir()}
    assert (FOLDER / RELEASED).is_dir()


def fact() -> Event:
    money = Money(5, "KZT")
    return Event(
        "evt_1", "payment.succeeded", 1, "pay_1", money, None, None, None, 0, 0, Kind.SUCCEEDED
    )
