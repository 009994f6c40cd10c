"""Money is an integer of minor units and a known currency; other values are refused."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.money import (
    MAX_AMOUNT_MINOR,
    Money,
    MoneyError,
    check_amount,
    check_currency,
    major_units,
    minor_units,
)

amounts = st.integers(0, MAX_AMOUNT_MINOR)
currencies = st.sampled_from(sorted(MINOR_UNIT_DIGITS))


@given(amounts, currencies)
def test_every_amount_up_to_the_largest_amount_is_valid_in_every_currency(amount, currency):
    assert Money(amount, currency).amount_minor == check_amount(amount) == amount
    assert Money(amount, currency).currency == check_currency(currency) == currency


def test_a_double_exactly_represents_every_integer_up_to_the_largest_amount():
    assert MAX_AMOUNT_MINOR == 2**53 - 1
    assert check_amount(2**53 - 1) == 2**53 - 1


@given(st.floats())
def test_every_float_is_refused_even_if_it_is_a_whole_number(amount):
    with pytest.raises(MoneyError) as caught:
        Money(amount, "KZT")
    assert caught.value.reason == "amount_not_integer"


@given(st.integers(max_value=-1))
def test_every_negative_amount_is_refused(amount):
    with pytest.raises(MoneyError) as caught:
        Money(amount, "KZT")
    assert caught.value.reason == "amount_negative"


@given(st.integers(min_value=2**53))
def test_every_amount_beyond_the_largest_amount_is_refused(amount):
    with pytest.raises(MoneyError) as caught:
        Money(amount, "KZT")
    assert caught.value.reason == "amount_too_large"


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (None, "amount_missing"),
        (True, "amount_not_integer"),
        (False, "amount_not_integer"),
        ("500", "amount_not_integer"),
        ("", "amount_not_integer"),
        ([500], "amount_not_integer"),
        ({}, "amount_not_integer"),
        (Decimal(500), "amount_not_integer"),
        (-1, "amount_negative"),
        (2**53, "amount_too_large"),
    ],
)
def test_a_value_that_is_not_an_amount_is_refused_with_a_reason(amount, reason):
    for make in (check_amount, lambda given: Money(given, "KZT")):
        with pytest.raises(MoneyError) as caught:
            make(amount)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("currency", "reason"),
    [
        (None, "currency_missing"),
        ("", "currency_unknown"),
        ("kzt", "currency_unknown"),
        ("KZT ", "currency_unknown"),
        ("BTC", "currency_unknown"),
        (398, "currency_unknown"),
        (True, "currency_unknown"),
        (["KZT"], "currency_unknown"),
        ({"code": "KZT"}, "currency_unknown"),
    ],
)
def test_a_value_that_is_not_a_currency_is_refused_with_a_reason(currency, reason):
    for make in (check_currency, lambda given: Money(1, given)):
        with pytest.raises(MoneyError) as caught:
            make(currency)
        assert caught.value.reason == reason


@pytest.mark.parametrize("currency", ["XAU", "XTS", "XXX", "XDR"])
def test_a_code_that_has_no_minor_unit_is_not_a_currency(currency):
    with pytest.raises(MoneyError, match="ISO 4217"):
        check_currency(currency)


def test_an_error_quotes_only_the_first_characters_of_the_value():
    with pytest.raises(MoneyError) as caught:
        check_currency("x" * 10_000)
    assert len(str(caught.value)) < 100


@given(st.integers(0, 2**52 - 1), st.integers(0, 2**52 - 1), currencies)
def test_amounts_in_the_same_currency_can_be_added(one, other, currency):
    assert Money(one, currency) + Money(other, currency) == Money(one + other, currency)


@given(amounts, amounts, currencies, currencies)
def test_amounts_in_different_currencies_cannot_be_added(one, other, currency, other_currency):
    if currency != other_currency:
        with pytest.raises(MoneyError) as caught:
            Money(one, currency) + Money(other, other_currency)
        assert caught.value.reason == "currency_mismatch"


@pytest.mark.parametrize("other", [0, 1, 1.5, None, "1"])
def test_only_money_can_be_added_to_money(other):
    with pytest.raises(TypeError):
        Money(1, "KZT") + other


def test_a_sum_beyond_the_largest_amount_is_refused():
    with pytest.raises(MoneyError) as caught:
        Money(MAX_AMOUNT_MINOR, "KZT") + Money(1, "KZT")
    assert caught.value.reason == "amount_too_large"


def test_amounts_of_money_cannot_be_sorted_because_their_currencies_may_differ():
    with pytest.raises(TypeError):
        assert Money(1, "KZT") < Money(2, "USD")


@pytest.mark.parametrize("stored", [[1.5, "KZT"], [-1, "KZT"], [True, "KZT"], [1, "kzt"]])
def test_bytes_that_are_not_money_are_not_decoded_to_money(stored):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(stored), type=Money)


@given(st.integers(-MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR), currencies)
def test_major_units_are_the_same_amount_with_the_currencys_decimals(amount, currency):
    written = Decimal(major_units(amount, currency))
    digits = MINOR_UNIT_DIGITS[currency]
    assert written.scaleb(digits) == amount
    assert -written.as_tuple().exponent == digits


@given(amounts, currencies)
def test_an_amount_that_was_written_in_major_units_is_read_exactly(amount, currency):
    assert minor_units(major_units(amount, currency), currency) == amount


@given(amounts, currencies, st.integers(0, 5))
def test_trailing_zeros_and_omitted_decimals_change_nothing(amount, currency, zeros):
    text = major_units(amount, currency)
    if "." in text:
        assert minor_units(text.rstrip("0").rstrip("."), currency) == amount
    longer = text + "0" * zeros if "." in text else f"{text}.0{'0' * zeros}"
    assert minor_units(longer, currency) == amount


@given(amounts, currencies, st.integers(1, 9))
def test_more_decimals_than_the_currency_has_are_refused_and_not_rounded(amount, currency, digit):
    text = major_units(amount, currency)
    with pytest.raises(MoneyError) as caught:
        minor_units(f"{text if '.' in text else f'{text}.'}{digit}", currency)
    assert caught.value.reason == "amount_too_precise"


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "+1", "-1", ".5", "5.", "1.5.0", "1\n", "NaN", "inf"),
        *("1,5", "1.500,00", "1 500", "1_000", "1e3", "0x1", "\u0661", "9" * 31, f"1.{'0' * 31}"),
    ],
)
def test_a_text_that_is_not_a_plain_decimal_number_is_refused(text):
    with pytest.raises(MoneyError) as caught:
        minor_units(text, "KZT")
    assert caught.value.reason == "amount_not_decimal"
    assert repr(text)[:40] in str(caught.value)


def test_an_amount_in_major_units_is_refused_if_it_is_too_large_or_its_currency_is_unknown():
    assert minor_units("90071992547409.91", "KZT") == MAX_AMOUNT_MINOR
    with pytest.raises(MoneyError) as caught:
        minor_units("90071992547409.92", "KZT")
    assert caught.value.reason == "amount_too_large"
    with pytest.raises(MoneyError) as caught:
        minor_units("1", "kzt")
    assert caught.value.reason == "currency_unknown"
