"""A rule file that a user wrote is read exactly, or is refused with the line and the remedy."""

import pytest

from ledger.lifecycle import LIFECYCLE, SEED, Kind
from ledger.rule_files import RuleFileError, read_rules

JSON = """{
  "extends": "lifecycle",
  "types": {
    "shop.paid": "succeeded",
    "shop.closed": {"won": "dispute_won", "*": "informational"}
  }
}
"""


def test_a_file_adds_its_types_to_the_rules_that_it_extends():
    rules = read_rules("shop.json", JSON)
    assert rules.kind_of("shop.paid", {}) is Kind.SUCCEEDED
    assert rules.kind_of("shop.closed", {"status": "won"}) is Kind.DISPUTE_WON
    assert rules.kind_of("shop.closed", {"status": "Won "}) is Kind.DISPUTE_WON
    assert rules.kind_of("shop.closed", {}) is Kind.INFORMATIONAL
    assert rules.kind_of("payment.captured", {}) is Kind.CAPTURED
    assert rules.follows_payments


def test_a_file_that_extends_nothing_knows_only_its_own_types():
    rules = read_rules("own.toml", '[types]\n"payment.succeeded" = "succeeded"\n')
    assert set(rules.types) == {"payment.succeeded"}
    assert not rules.follows_payments


def test_the_same_rules_in_json_and_in_toml_have_the_same_digest():
    toml = (
        'extends = "lifecycle"\n[types]\n"shop.paid" = "succeeded"\n'
        '"shop.closed" = { won = "dispute_won", "*" = "informational" }\n'
    )
    assert read_rules("a.toml", toml).digest == read_rules("b.json", JSON).digest
    same = read_rules("c.json", '{"extends": "lifecycle", "types": {}}')
    assert same.digest == LIFECYCLE.digest
    assert same.digest != SEED.digest


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.json", '{\n "types": {\n  "a.b": "paid"\n }\n}',
         "r.json, line 3: the kind of 'a.b' is 'paid', expected one of succeeded, "),
        ("r.json", '{"types": {\n "a": {"won": 7}}}', "line 2: the kind of 'a' is 7"),
        ("r.json", '{\n"types": {},\n"folows": 1}',
         "line 3: 'folows' is unknown, expected one of extends, types"),
        ("r.json", '{\n"types": {"a": "failed",\n"a": "voided"}}', "line 3: 'a' occurs twice"),
        ("r.json", '{"types": {\n', "r.json, line 2: expected JSON: "),
        ("r.json", '{"extends": "ledger", "types": {}}', "line 1: extends: Invalid enum value"),
        ("r.json", "[]", "r.json, line 1: Expected `object`"),
        ("r.toml", "types = {\n", "r.toml, line 1: expected TOML: "),
        ("r.toml", '[types]\n"a" = "failed"\n"b" = "', "r.toml, line 3: expected TOML: "),
        ("r.json", '{"types": {\n"a":\n["failed"]}}', "line 2: the kind of 'a' is ['failed']"),
        ("r.json", '{"types": {\n"a": {"won": ["x"]}}}', "line 2: the kind of 'a' is ['x']"),
        ("r.json", '{\n"types": {"a": {"won": {}}}}', "line 2: the kind of 'a' is {}"),
        ("r.json", '{\n"types": {"a": null}}', "line 2: the kind of 'a' is None"),
        ("r.toml", '[types]\n"a" = ["failed"]\n', "line 2: the kind of 'a' is ['failed']"),
        ("r.json", '{"types": {\n"a\\uD83d": "failed"}}', "r.json, line 2: it can't be read: "),
        ("r.json", '{"types": {},\n"captured_fields": ["\\udc00"]}', "r.json, line 2: "),
        ("r.json", '{"types": {"a":\n NaN}}', "r.json, line 2: it can't be read: "),
        ("r.json", "[" * 100_000, "r.json, line 1: it can't be read: "),
        ("r.toml", "a = " + "[" * 9000, "r.toml, line 1: "),
        ("r.json", '{"types": ' + "1" * 9000, "r.json, line 1: it can't be read: "),
        ("r.toml", '[types]\n"a" = "paid"\n', "r.toml, line 2: the kind of 'a' is 'paid'"),
        ("r.json", "{}", "r.json, line 1: Object missing required field `types`"),
    ],
)  # fmt: skip
def test_the_error_for_a_wrong_file_names_the_line_and_the_expected_content(name, text, message):
    with pytest.raises(RuleFileError) as error:
        read_rules(name, text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[types]\nshop.paid = "succeeded"\n', 2),
        ('[types]\n"a" = "failed"\nshop.dispute.lost = "dispute_lost"\n', 3),
        ('extends = "seed"\n[types.shop]\npaid = "succeeded"\n', 2),
        ('[ types . shop . closed ]\nwon = "dispute_won"\n', 1),
        ('types.shop.paid = "succeeded"\n', 1),
        ('types = { shop.paid = "succeeded" }\n', 1),
    ],
)
def test_a_dotted_type_without_quotes_in_toml_is_refused_with_the_remedy(text, line):
    """TOML reads an unquoted `shop.paid` as a type `shop` with a status; no event has that type."""
    with pytest.raises(RuleFileError) as error:
        read_rules("r.toml", text)
    assert f"r.toml, line {line}: the name 'shop' has no quotes" in str(error.value)
    assert 'Write the whole name of the type in quotes, such as "shop.paid"' in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        '[types]\nshop = { won = "dispute_won" }\n',
        '# not shop.paid\n[types."shop"]\nwon = "dispute_won"\n',
        '[types]\n"shop.paid" = "succeeded"\n\'shop\' = { won = "dispute_won" }\n',
    ],
)
def test_a_type_with_statuses_is_read_if_it_is_unambiguous_in_toml(text):
    rules = read_rules("r.toml", text)
    assert rules.kind_of("shop", {"status": "won"}) is Kind.DISPUTE_WON
