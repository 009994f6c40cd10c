"""A released schema changes only as docs/events/README.md allows."""

import copy
import subprocess
import sys

import pytest

from cli.contract.__main__ import FOLDER, RELEASED, broken
from cli.contract.schemas import breaking_changes, schema_of, schemas

RELEASED_ONES = sorted((FOLDER / RELEASED).glob("*.json"))
ORDERS = schema_of("ledger.orders")


def changed(**edits: object):
    """Return the schema of orders with new values at some paths; ``None`` removes a key."""
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


def test_the_current_schemas_break_no_released_schema():
    assert broken(FOLDER) == [], (
        "this change would break readers of a released schema: docs/events/README.md has the remedy"
    )
    released = {file.name.rpartition(".v")[0] for file in RELEASED_ONES}
    assert released == {name.rpartition(".v")[0] for name in schemas()}


def test_a_released_schema_may_be_superseded_but_not_removed(tmp_path):
    (tmp_path / RELEASED).mkdir()
    for name in ("ledger.orders.v0", "ledger.orders.v99", "ledger.refunds.v1"):
        (tmp_path / RELEASED / f"{name}.schema.json").write_text("{}")
    assert broken(tmp_path) == [
        "ledger.orders.v99.schema.json: the schema was released, but is gone",
        "ledger.refunds.v1.schema.json: the schema was released, but is gone",
    ]


def test_a_release_that_would_break_a_reader_is_refused_and_writes_nothing(tmp_path):
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
def test_changed_descriptions_and_new_optional_fields_need_no_new_version(now):
    assert breaking_changes(ORDERS, now) == []


def test_a_type_that_is_only_renamed_needs_no_new_version():
    renamed = changed(
        **{"$defs__Sums": ORDERS["$defs"]["Totals"], "$defs__Totals": None},
        properties__totals__additionalProperties={"$ref": "#/$defs/Sums"},
    )
    assert breaking_changes(ORDERS, renamed) == []


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (changed(properties__version=None), "$.version is gone"),
        # A field that becomes optional breaks readers that require it. A new required field makes
        # old records invalid, because they lack the field.
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
def test_a_change_that_breaks_readers_or_older_records_needs_a_new_version(now, named):
    found = breaking_changes(ORDERS, now)
    assert found
    assert any(each.startswith(named) for each in found), found
