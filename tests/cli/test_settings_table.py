"""The table of settings is complete, and a setting means the same to every command."""

from itertools import chain

import msgspec
import pytest

from cli.settings_table import READ_BY, as_markdown, rows, variables
from runtime.settings import SettingsError, describe

_CLASSES = sorted(
    {kind for kinds in READ_BY.values() for kind in kinds}, key=lambda kind: kind.__name__
)


def test_a_variable_means_the_same_to_every_command():
    meanings = {}
    for kind in _CLASSES:
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        for each in describe(kind):
            name = each.variable.removeprefix("LEDGER_").lower()
            meaning = (each, types[name])
            assert meanings.setdefault(each.variable, meaning) == meaning


def test_every_setting_has_a_description():
    assert [row.variable for row in rows() if not row.text] == []


def test_the_table_has_every_setting_once_with_all_its_commands():
    listed = list(rows())
    assert len({row.variable for row in listed}) == len(listed)
    for row in listed:
        assert set(row.commands) == {name for name in READ_BY if row.variable in variables(name)}
    assert {row.variable for row in listed} == set(chain(*map(variables, READ_BY)))


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.variable)
def test_the_markdown_has_a_line_of_four_cells_for_each_setting(row):
    (line,) = [ln for ln in as_markdown().splitlines() if ln.startswith(f"| `{row.variable}` |")]
    assert line.replace("\\|", "").count("|") == 5


def test_a_command_that_reads_no_settings_has_an_empty_list():
    assert variables("version") == []


@pytest.mark.parametrize("kind", _CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEDGER_API_TOKEN", "hidden"),
        ("LEDGER_KAFKA_BOOTSTRAP", "user:hidden@kafka:9092"),
        ("LEDGER_KAFKA_BOOTSTRAP", "kafka:9092,user:hid,hidden@kafka:9092"),
        ("LEDGER_KAFKA_BOOTSTRAP", "hidden@kafka:9092"),
        ("LEDGER_KAFKA_BOOTSTRAP", "kafka://user:hidden@kafka:9092"),
        ("LEDGER_KAFKA_BOOTSTRAP", "kafka:9092;password=hidden"),
    ],
)
def test_a_short_token_or_a_password_in_an_address_is_refused_and_not_shown(kind, name, value):
    if name not in {each.variable for each in describe(kind)}:
        return
    with pytest.raises(SettingsError, match=f"^{name}: expected") as caught:
        kind.from_environment({name: value, "LEDGER_ALLOW_UNSIGNED": "true"})
    assert "hid" not in str(caught.value)
