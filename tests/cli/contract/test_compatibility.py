"""What may change in a released schema, and what may not: the rule of docs/events/README.md."""

import copy
import subprocess
import sys

import pytest

from cli.contract.__main__ import FOLDER, RELEASED, broken
from cli.contract.compatibility import breaking_changes
from cli.contract.schemas import schema_of, schemas

RELEASED_ONES = sorted((FOLDER / RELEASED).glob("*.json"))
ORDERS = schema_of("ledger.orders")


def changed(**edits: object):
    """Return the schema of orders with keys set, by path; ``None`` takes one away."""
    schema = copy.deepcopy(ORDERS)
    for path, value in edits.items():
        *parents, last = path.split("__")
        node = schema
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return schema


def test_nothing_that_was_released_is_broken():
    assert broken(FOLDER) == [], (
        "a reader of the released schema would break: see docs/events/README.md for a new version"
    )
    assert {file.name for file in RELEASED_ONES} == set(schemas())


def test_a_released_schema_may_be_superseded_and_never_gone(tmp_path):
    (tmp_path / RELEASED).mkdir()
    for name in ("ledger.orders.v0", "ledger.orders.v99", "ledger.refunds.v1"):
        (tmp_path / RELEASED / f"{name}.schema.json").write_text("{}")
    assert broken(tmp_path) == [
        "ledger.orders.v99.schema.json: it was released and is gone",
        "ledger.refunds.v1.schema.json: it was released and is gone",
    ]


def test_a_release_is_refused_that_would_break_a_reader_and_writes_nothing(tmp_path):
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.contract", "--folder", str(tmp_path), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    assert command("--release").returncode == 0
    file = tmp_path / RELEASED / "ledger.entries.v1.schema.json"
    assert file.read_bytes() == (tmp_path / file.name).read_bytes()
    file.write_text(file.read_text().replace('"created"', '"made"'))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    done = command("--release")
    assert done.returncode == 1
    assert "ledger.entries.v1.schema.json: $.made is gone" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


FIELD = {"type": "string", "description": "new"}


@pytest.mark.parametrize(
    "now",
    [
        ORDERS,
        changed(description="in other words"),
        changed(properties__status__description="in other words"),
        changed(properties__anomalies__examples=[["one_more"]]),
        changed(properties__note=FIELD),
        changed(properties__title=FIELD),
        changed(**{"$defs__Refund__properties__note": FIELD}),
        changed(required=[*reversed(ORDERS["required"])]),
    ],
)
def test_other_words_and_an_optional_field_more_are_no_new_version(now):
    assert breaking_changes(ORDERS, now) == []


def test_a_type_may_have_another_name():
    renamed = changed(
        **{"$defs__Sums": ORDERS["$defs"]["Totals"], "$defs__Totals": None},
        properties__totals__additionalProperties={"$ref": "#/$defs/Sums"},
    )
    assert breaking_changes(ORDERS, renamed) == []


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (changed(properties__version=None), "$.version is gone"),
        # Who reads v1 does not expect it; and what was written before has none.
        (changed(required=ORDERS["required"][1:]), "$.required"),
        (changed(properties__note=FIELD, required=[*ORDERS["required"], "note"]), "$.required"),
        (changed(properties__version__type="string"), "$.version.type"),
        (changed(properties__status__enum=["paid", "failed"]), "$.status.enum"),
        (changed(properties__status__enum=[*"abcde", "disputed"]), "$.status.enum"),
        (changed(properties__order_id__maxLength=100), "$.order_id.maxLength"),
        (changed(properties__order_id__maxLength=None), "$.order_id.maxLength"),
        (changed(properties__totals__propertyNames__pattern="x"), "$.totals.propertyNames.pattern"),
        (changed(additionalProperties=False), "$.additionalProperties"),
        (
            changed(**{"$defs__Refund__properties__amount__type": "number"}),
            "$.payments.items.refunds.items.amount.type",
        ),
        (
            changed(**{"$defs__PaymentDocument__properties__amount": {"type": "integer"}}),
            "$.payments.items.amount.anyOf",
        ),
        (changed(**{"$id": "urn:other"}), "$.$id"),
    ],
)
def test_whatever_a_reader_or_an_older_record_would_break_on_takes_a_new_version(now, named):
    found = breaking_changes(ORDERS, now)
    assert found
    assert any(each.startswith(named) for each in found), found
