"""A settlement file is read exactly; an error names the line, the column and the value."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.accounting.reconcile import AmountFormat, ReconcileOptions, read_settlement
from cli.accounting.settlement_values import zone_of
from cli.errors import WrongOptionError
from ledger.accounting.settlement import Line, Period
from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.money import MAX_AMOUNT_MINOR, Money, major_units
from runtime.minor_units import MinorUnits

HEADER = "payment_id,amount,currency,kind\n"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads text or bytes as a settlement file."""

    def read_text(text, *, minor=False):
        path = tmp_path / "settlement.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settlement(path, AmountFormat(minor))

    return read_text


def test_a_file_is_read_line_by_line(read):
    lines = read(HEADER + "pay_1,5000.00,KZT,payment\npay_1,1500.5,KZT,refund\n")
    assert lines == [
        Line(2, "pay_1", "payment", Money(500000, "KZT")),
        Line(3, "pay_1", "refund", Money(150050, "KZT")),
    ]


def test_the_columns_may_be_in_any_sequence_and_the_file_may_have_other_columns(read):
    text = 'kind,fee,currency,note,payment_id,amount\nrefund,0.10,JPY,"a, b\nc",pay 1,7\n'
    assert read(text) == [Line(3, "pay 1", "refund", Money(7, "JPY"))]


def test_a_file_from_a_spreadsheet_is_read(read):
    text = "\ufeff" + HEADER.replace("\n", "\r\n") + '"pay_1","5.00","KZT","payment"\r\n\r\n'
    assert read(text) == [Line(2, "pay_1", "payment", Money(500, "KZT"))]


def test_an_amount_in_minor_units_is_read_unchanged_and_must_consist_of_digits(read):
    assert read(HEADER + "p,500,BHD,payment\n", minor=True)[0].money == Money(500, "BHD")
    for amount in ("5.00", "-5", "", str(MAX_AMOUNT_MINOR + 1), "9" * 31):
        with pytest.raises(WrongOptionError, match=rf"line 2: amount: .*got '{amount}'"):
            read(f"{HEADER}p,{amount},KZT,payment\n", minor=True)


def test_the_amount_of_a_refund_may_be_negative_but_the_amount_of_a_payment_may_not(read):
    assert read(HEADER + "p,-5.00,KZT,refund\n")[0].money == Money(500, "KZT")
    assert read(HEADER + "p,-500,KZT,refund\n", minor=True)[0].money == Money(500, "KZT")
    with pytest.raises(WrongOptionError, match=r"line 2: amount: .*got '-5\.00'"):
        read(HEADER + "p,-5.00,KZT,payment\n")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("p,5.00,KZT,payout", "kind: expected payment or refund, got 'payout'"),
        (",5.00,KZT,payment", "payment_id: expected an id"),
        ('p,"5,000",KZT,payment', "amount: '5,000' has two meanings: give --decimal"),
        ("p,1.500,KZT,payment", "amount: '1.500' has two meanings: give --decimal"),
        ("p,12.000,JPY,payment", "amount: '12.000' has two meanings: give --decimal"),
        ('p,"1,23,456.00",KZT,payment', "amount: .*got '1,23,456.00'"),
        ('p,"1.234.5,00,1",KZT,payment', "amount: "),
        ("p,5.,KZT,payment", "amount: .*got '5.'"),
        ("p,5.0001,KZT,payment", "amount: KZT has 2 decimals, got '5.0001'"),
        ("p,0.5,JPY,payment", "amount: JPY has 0 decimals, got '0.5'"),
        (
            "p,90071992547409.92,KZT,payment",
            "amount: expected at most 90.* KZT, got '90071992547409.92'",
        ),
        ("p,5.00,kz,payment", "currency: .*got 'KZ'"),
        ("p,5.00,,payment", "currency: .*got ''"),
        ("p,5.00,KZT", "expected 4 columns, got 3: 'p,5.00,KZT'"),
        ("p,5.00,KZT,payment,more", "expected 4 columns, got 5"),
        ('p,5.00,KZT,"payment', "unexpected end of data"),
        ('p,5.00,KZT,"pay"ment', "',' expected after"),
    ],
)
def test_the_error_for_an_invalid_value_names_the_line_of_the_value(read, row, why):
    with pytest.raises(WrongOptionError, match=rf"settlement\.csv, line 3: {why}"):
        read(f"{HEADER}p,1.00,KZT,payment\n{row}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "payment_id;amount;currency\n",
        "payment_id,amount,currency\n",
        "payment_id,amount,currency,kind,amount\n",
        "Payment ID,Amount,Currency,Kind\n",
        "p,5.00,KZT,payment\n",
    ],
)
def test_the_error_for_a_wrong_header_names_the_expected_columns(read, text):
    with pytest.raises(
        WrongOptionError, match=r"line 1: .*payment_id,amount,currency,kind exactly once"
    ):
        read(text)


def test_the_error_for_bytes_that_are_not_utf_8_names_the_last_line_before_the_bytes(read):
    with pytest.raises(WrongOptionError, match=r"settlement\.csv, after line .*not UTF-8"):
        read(HEADER.encode() + b"p\xff,5.00,KZT,payment\n")


_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_monies = st.builds(
    Money, st.integers(0, MAX_AMOUNT_MINOR), st.sampled_from(sorted(MINOR_UNIT_DIGITS))
)
_rows = st.lists(st.tuples(_ids, _monies, st.sampled_from(["payment", "refund"])), max_size=5)


@given(_rows, st.booleans())
def test_any_rows_written_as_csv_are_read_back_exactly(tmp_path_factory, rows, minor):
    path = tmp_path_factory.mktemp("settlement") / "settlement.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["payment_id", "amount", "currency", "kind"])
        for payment_id, money, kind in rows:
            in_major_units = major_units(money.amount_minor, money.currency)
            amount = str(money.amount_minor) if minor else in_major_units
            writer.writerow([payment_id, amount, money.currency, kind])
    found = [
        (line.payment_id, line.money, line.kind)
        for line in read_settlement(path, AmountFormat(minor))
    ]
    assert found == rows


@pytest.mark.parametrize(
    ("amount", "minor_units"),
    [
        ("1500.5", 150050),
        ("1500,50", 150050),
        ("1 500,50", 150050),
        ("1\u00a0500.50", 150050),
        ("1'500.50", 150050),
        ("1,500.50", 150050),
        ("1.500,50", 150050),
        ("1,234,567", 123456700),
        ("1.234.567", 123456700),
        ("0,500", 50),
        ("0.500", 50),
        ("1500.500", 150050),
        ("1 500,500", 150050),
        (" 1500.50\u00a0", 150050),
    ],
)
def test_an_amount_with_separators_is_read_if_it_has_only_one_meaning(read, amount, minor_units):
    text = f"Payment_ID;AMOUNT;Currency;kind\np;{amount}; kzt ;Payment \n"
    assert read(text)[0].money == Money(minor_units, "KZT")


def test_blanks_around_a_payment_id_belong_to_the_id(read):
    assert read(HEADER + " p ,5.00,KZT,payment\n")[0].payment_id == " p "


@pytest.mark.parametrize(
    ("amount", "decimal", "minor_units"),
    [
        ("1,234", ".", 123400),
        ("1,234", ",", None),
        ("1.500", ",", 150000),
        ("1.500", ".", 150),
        ("1.234", ".", None),
    ],
)
def test_the_option_decimal_decides_between_two_meanings_of_an_amount(
    tmp_path, amount, decimal, minor_units
):
    path = tmp_path / "settlement.csv"
    path.write_text(f'{HEADER}p,"{amount}",KZT,payment\n', encoding="utf-8")
    if minor_units is None:
        with pytest.raises(WrongOptionError, match="KZT has 2 decimals"):
            read_settlement(path, AmountFormat(decimal=decimal))
    else:
        (line,) = read_settlement(path, AmountFormat(decimal=decimal))
        assert line.money == Money(minor_units, "KZT")


def test_the_setting_for_minor_units_decides_how_many_decimals_an_amount_may_have(tmp_path):
    path = tmp_path / "settlement.csv"
    path.write_text(f"{HEADER}p,1.234,KWD,payment\n", encoding="utf-8")
    with pytest.raises(WrongOptionError, match="KWD has 2 decimals"):
        read_settlement(path, AmountFormat(decimal="."))
    for decimal in (".", None):
        amounts = AmountFormat(decimal=decimal, digits_of=MinorUnits("KWD:3").digits_of)
        (line,) = read_settlement(path, amounts)
        assert line.money == Money(1234, "KWD")
    path.write_text(f'{HEADER}p,"1,234",KWD,payment\n', encoding="utf-8")
    with pytest.raises(WrongOptionError, match="two meanings"):
        read_settlement(path, amounts)


@pytest.mark.parametrize("name", ["Asia/Almaty", "UTC+5", "utc+05:00", "+05:00"])
def test_a_day_begins_at_midnight_in_the_given_time_zone(name):
    day = datetime(2026, 1, 2)  # noqa: DTZ001
    options = ReconcileOptions(path=Path("x"), zone=zone_of(name), first_day=day, last_day=day)
    begin = int(datetime(2026, 1, 1, 19, tzinfo=UTC).timestamp())
    assert options.period == Period(begin, begin + 24 * 3600)


@pytest.mark.parametrize("name", ["", "Almaty", "UTC+99", "UTC+5:99", "+05:60", "+5", "../x"])
def test_the_error_for_an_unknown_time_zone_gives_an_example(name):
    with pytest.raises(WrongOptionError, match="Asia/Almaty"):
        zone_of(name)
