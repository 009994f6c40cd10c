"""Each export is read back exactly by a program for its format, whatever the ids contain."""

import csv
import io
import json
import string
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pytest
from beancount import loader
from beancount.core.data import Open, Transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.accounting.formats import beancount, csv_table, day, hledger, quoted
from ledger.accounting.snapshot import JournalSnapshot
from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.events import PAYMENT_SUCCEEDED, Event
from ledger.journal import Entry, Subject, entry_of, reversal_of
from ledger.lifecycle import Kind
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.wire import ENTRIES
from runtime.minor_units import MinorUnits
from tests import bookkeeping

MILLISECONDS = 1_767_225_600_000
# For two currencies, this setting gives a number of decimals that differs from Plexy's number.
DIGITS_OF = MinorUnits("BHD:3,CLF:4").digits_of

# Each of these texts has a special meaning in some format; Hypothesis adds other texts.
HOSTILE = (
    *('"', "\\", '\\"', "\n", "\r\n", "\n2026-01-01 open Assets:Mine", '"\n  Assets:Mine  1 KZT'),
    *(";", ", b:c", "a:b", "|", "%", "%2F", "%25", "'", "=1+1", "-1", "+1", "@x", "\t=1", "()"),
    *(
        " ",
        "  ",
        "\0",
        "\x1b[2J",
        "\u2028",
        "\u202e",
        "\ufeff",
        "№ 3/b",
        "日本",
        "🧾",
        "[2026-01-01]",
    ),
)
ids = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ids = st.tuples(ids, ids).map("".join).filter(bool)


@st.composite
def entries(draw) -> list[Entry]:
    """Return entries with any currency, amount, time and log offset, sorted as in a snapshot."""
    made = {}
    for offset in range(draw(st.integers(0, 4))):
        currency = draw(st.sampled_from(["KZT", "JPY", "BHD", "CLF", *MINOR_UNIT_DIGITS]))
        money = Money(draw(st.integers(0, 20) | st.integers(0, MAX_AMOUNT_MINOR)), currency)
        created = draw(st.integers(0, 2_000_000_000) | st.integers(0, MAX_AMOUNT_MINOR))
        place = (draw(st.integers(0, 63)), offset)
        fact = Event(
            draw(ids),
            PAYMENT_SUCCEEDED,
            created,
            "x",
            money,
            None,
            None,
            None,
            *place,
            Kind.SUCCEEDED,
        )
        subject = Subject(draw(ids), draw(st.none() | ids))
        for entry in [entry_of, reversal_of][: draw(st.integers(1, 2))]:
            posted = entry(subject, (fact,))
            made[posted.entry_id] = posted
    snapshot = JournalSnapshot()
    for entry_id, entry in made.items():
        snapshot.read(entry_id.encode(), ENTRIES.encode(entry))
    return snapshot.ordered()


def written(kind, given_entries: list[Entry]) -> str:
    return "".join(kind(given_entries, "some entries", DIGITS_OF))


def facts_of(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields that a reader of the file must find, except the postings."""
    found = {
        "entry": entry.entry_id,
        "payment": entry.payment_id,
        "refund": entry.refund_id,
        "event": entry.event_id,
        "created": str(entry.created),
        "partition": str(entry.partition),
        "offset": str(entry.offset),
        "reverses": entry.reverses,
    }
    return {name: text for name, text in found.items() if text is not None}


def legs_of(entry: Entry) -> list[tuple[str, Decimal, str]]:
    return [
        (leg.account, Decimal(leg.amount).scaleb(-DIGITS_OF[leg.currency]), leg.currency)
        for leg in entry.postings
    ]


@given(ids)
def test_a_quoted_id_has_no_special_character_and_is_read_back_exactly(text):
    safe = quoted(text)
    assert set(safe) <= {*string.ascii_letters, *string.digits, *"_.-~/%"}
    assert not safe.startswith("-")
    assert unquote(safe, errors="strict") == text


@given(st.text(string.ascii_letters + string.digits + "_", max_size=20))
def test_quoting_does_not_change_an_id_of_the_usual_form(text):
    assert quoted(text) == text


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (0, "1970-01-01"),
        (1_767_225_599, "2025-12-31"),
        (1_767_225_600, "2026-01-01"),
        (1_709_164_800, "2024-02-29"),
        (253_402_214_399, "9999-12-30"),
        (253_402_214_400, "9999-12-31"),
        (MILLISECONDS, "9999-12-31"),
        (MAX_AMOUNT_MINOR, "9999-12-31"),
    ],
)
def test_a_day_is_in_utc_and_never_later_than_the_end_of_9999(created, expected):
    assert day(created) == expected


@given(entries())
def test_csv_has_a_row_for_each_posting_and_is_read_back_exactly(given_entries):
    text = written(csv_table, given_entries)
    # No field needs quotes, so a reader may split the text at line ends and commas.
    lines = text.splitlines()
    assert all(len(line.split(",")) == 12 for line in lines)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == len(lines) - 1 == sum(len(entry.postings) for entry in given_entries)
    expected = [(entry, leg) for entry in given_entries for leg in legs_of(entry)]
    for row, (entry, (account, amount, currency)) in zip(rows, expected, strict=True):
        assert {name: unquote(row[name]) for name in facts_of(entry)} == facts_of(entry)
        assert (row["account"], Decimal(row["amount"])) == (account, amount)
        assert (row["currency"], row["date"]) == (currency, day(entry.created))
        assert "E" not in row["amount"]


@given(entries())
@settings(max_examples=50)
def test_beancount_loads_every_entry_exactly_and_without_an_error(given_entries):
    loaded, errors, _ = loader.load_string(written(beancount, given_entries))
    assert errors == []
    transactions = [each for each in loaded if isinstance(each, Transaction)]
    assert all(isinstance(each, Transaction | Open) for each in loaded)
    assert len(transactions) == len(given_entries)
    by_id = {unquote(each.meta["entry"]): each for each in transactions}
    for entry in given_entries:
        found = by_id[entry.entry_id]
        meta = {name: unquote(str(found.meta[name])) for name in facts_of(entry)}
        assert meta == facts_of(entry)
        assert found.date == date.fromisoformat(day(entry.created))
        legs = [
            (leg.account.lower(), leg.units.number, leg.units.currency) for leg in found.postings
        ]
        assert legs == legs_of(entry)


@given(st.lists(entries(), min_size=10, max_size=40))
@settings(max_examples=10)
def test_hledger_reads_every_entry_exactly_even_with_the_strictest_checks(several):
    snapshot = JournalSnapshot()
    for entry in {entry.entry_id: entry for some in several for entry in some}.values():
        snapshot.read(entry.entry_id.encode(), ENTRIES.encode(entry))
    ordered = snapshot.ordered()
    text = written(hledger, ordered)
    bookkeeping.hledger("--file", "-", "check", "--strict", "ordereddates", text=text)
    transactions = json.loads(
        bookkeeping.hledger("--file", "-", "print", "--output-format", "json", text=text)
    )
    assert len(transactions) == len(ordered)
    for found, entry in zip(transactions, ordered, strict=True):
        tags = {name: unquote(value) for name, value in found["ttags"]}
        assert tags == facts_of(entry)
        assert found["tdate"] == day(entry.created)
        legs = []
        for posting in found["tpostings"]:
            (amount,) = posting["pamount"]
            quantity = amount["aquantity"]
            number = Decimal(quantity["decimalMantissa"]).scaleb(-quantity["decimalPlaces"])
            legs.append((posting["paccount"], number, amount["acommodity"]))
        assert legs == legs_of(entry)


@pytest.mark.parametrize("kind", [beancount, hledger, csv_table])
def test_an_amount_has_the_number_of_decimals_that_the_setting_gives_for_its_currency(kind):
    fact = Event(
        *("evt_1", PAYMENT_SUCCEEDED, 1_767_225_600, "pay_1", Money(1_234_567, "BHD"), None),
        *(None, None, 0, 0, Kind.SUCCEEDED),
    )
    entry = entry_of(Subject("pay_1", None), (fact,))
    assert "-1234.567" in written(kind, [entry])


@pytest.mark.parametrize("kind", [beancount, hledger, csv_table])
def test_the_file_of_a_journal_that_has_no_entries_is_valid(kind):
    text = written(kind, [])
    if kind is beancount:
        assert loader.load_string(text)[1] == []
    elif kind is hledger:
        bookkeeping.hledger("--file", "-", "check", "--strict", text=text)
    else:
        assert text.startswith("date,created,entry,payment,refund,event,")
        assert text.count("\n") == 1
