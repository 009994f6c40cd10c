"""The AsyncAPI document satisfies AsyncAPI's own schema, and every example is a valid record."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from cli.contract.asyncapi import document
from cli.contract.schemas import schemas
from ledger.topics import TopicNames, all_topics
from tests.cli.contract.validation import writer

OFFICIAL = Path(__file__).parent / "asyncapi-3.0.0" / "schema.json"
DOCUMENT = document()
MESSAGES = DOCUMENT["components"]["messages"]


@pytest.fixture(scope="module")
def official() -> Draft7Validator:
    return Draft7Validator(json.loads(OFFICIAL.read_text()))


def test_the_document_is_valid_asyncapi_3_0(official):
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert [error.message for error in official.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize(
    "fault",
    [
        {"channels": {"orders": {"adress": "ledger.orders"}}},
        {"operations": {"publish": {"action": "publish", "channel": {"$ref": "#/"}}}},
        {"channels": {"orders": {"bindings": {"kafka": {"topicConfiguration": {
            "cleanup.policy": "compact"}}}}}},
    ],
)  # fmt: skip
def test_the_validator_finds_a_fault(official, fault):
    assert list(official.iter_errors(DOCUMENT | fault))


def test_every_referenced_schema_is_valid_inside_an_asyncapi_document(official):
    for schema in schemas().values():
        here = {"components": {"schemas": {"here": schema}}}
        assert [error.message for error in official.iter_errors(DOCUMENT | here)] == []


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for each in node for found in references(each)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if "$ref" in node else []
    return here + [found for each in node.values() for found in references(each)]


def test_every_reference_has_a_target():
    found = references(DOCUMENT)
    assert len(found) > 10
    for reference in found:
        file, _, path = reference.partition("#")
        node: Any = schemas()[file.removeprefix("./")] if file else DOCUMENT
        for name in path.split("/")[1:]:
            node = node[name]


def test_the_document_describes_the_topics_as_the_ledger_creates_them():
    names = TopicNames()
    published = {names.orders, names.entries, names.rejected}
    # AsyncAPI's binding for Kafka can describe only these settings of a topic.
    described = {"cleanup.policy", "max.message.bytes", "delete.retention.ms"}
    described |= {"retention.ms", "retention.bytes"}
    wanted = {
        topic.name: {name: value for name, value in topic.config().items() if name in described}
        for topic in all_topics(names, "")
        if topic.name in published
    }
    got = {}
    for channel in DOCUMENT["channels"].values():
        config = channel["bindings"]["kafka"]["topicConfiguration"]
        config = config | {"cleanup.policy": ",".join(config["cleanup.policy"])}
        got[channel["address"]] = {name: str(value) for name, value in config.items()}
    assert got == wanted


def test_the_examples_are_valid_records():
    for name, topic in [("orderDocument", "ledger.orders"), ("entry", "ledger.entries")]:
        assert len(MESSAGES[name]["examples"]) >= 3
        for example in MESSAGES[name]["examples"]:
            writer(topic).validate(example["payload"])
    for name in ("rejection", "putBack"):
        for example in MESSAGES[name]["examples"]:
            writer("plexy.rejected").validate(example["headers"])


def test_every_status_of_the_rules_called_seed_has_an_example():
    """The examples come from the demo's sample, which has no events of the other rule sets."""
    examples = MESSAGES["orderDocument"]["examples"]
    statuses = schemas()["ledger.orders.v2.schema.json"]["properties"]["status"]["enum"]
    of_other_rules = {"authorised", "charged_back", "disputed", "voided"}
    shown = [example["payload"]["status"] for example in examples]
    assert shown == [status for status in statuses if status not in of_other_rules]
