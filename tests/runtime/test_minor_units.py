"""The setting for the decimals of currencies changes only the currencies that it lists."""

import pytest

from ledger.currencies import MINOR_UNIT_DIGITS
from processors.settings import WorkerSettings
from runtime.minor_units import MinorUnits
from runtime.settings import SettingsError


def read(text: str) -> WorkerSettings:
    return WorkerSettings.from_environment({"LEDGER_MINOR_UNITS": text})


def test_if_the_setting_is_unset_the_decimals_are_the_decimals_of_plexy():
    assert read("").minor_units.digits_of == MINOR_UNIT_DIGITS
    assert [MINOR_UNIT_DIGITS[code] for code in ("KWD", "ISK", "MGA")] == [2, 2, 0]


def test_only_the_listed_currencies_change():
    digits_of = read(" KWD:3, isk : 0,").minor_units.digits_of
    assert digits_of == {**MINOR_UNIT_DIGITS, "KWD": 3, "ISK": 0}


def test_two_values_with_the_same_meaning_are_equal_and_each_is_shown_as_it_was_given():
    assert MinorUnits("KWD:3,ISK:0") == MinorUnits("isk:0, kwd:3") != MinorUnits()
    assert str(MinorUnits("isk:0, kwd:3")) == "isk:0, kwd:3"
    assert len({MinorUnits("KWD:3,ISK:0"), MinorUnits("ISK:0,KWD:3")}) == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("KWD", "each with 0 to 4 decimals"),
        ("KWD=3", "each with 0 to 4 decimals"),
        ("KWD:5", "each with 0 to 4 decimals"),
        ("KWD:-1", "each with 0 to 4 decimals"),
        ("KWD:3 ISK:0", "each with 0 to 4 decimals"),
        ("XAU:3", "each known to the ledger (XAU is unknown)"),
        ("KWD:3,kwd:3", "each only once (KWD is repeated)"),
    ],
)
def test_the_error_for_a_wrong_text_names_the_variable_and_an_example(text, rule):
    expected = f"LEDGER_MINOR_UNITS: expected currencies such as KWD:3,ISK:0, {rule}, got {text!r}"
    with pytest.raises(SettingsError) as refused:
        read(text)
    assert str(refused.value) == expected
