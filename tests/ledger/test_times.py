"""Every unambiguous form of a time is read, with the value that the standard library reads."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.times import seconds_of

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=zones), st.sampled_from(["T", " "]))
def test_a_time_in_iso_8601_has_the_same_value_as_in_the_standard_library(moment, separator):
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert seconds_of(moment.isoformat(separator)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-29T10:00:00Z",
        "2026-11-29t10:00:00z",
        "2026-11-29T10:00Z",
        "2026-11-29 10:00:00.999999999Z",
        "20261129T100000Z",
        "2026-11-29T15:00:00+05",
        "2026-11-29T05:00:00-0500",
        "1795946400",
        1795946400,
        1795946400.9,
        1795946400000,
        "1795946400999",
        "1795946400.999",
        "1795946400.0",
        "1795946400999.5",
    ],
)
def test_each_accepted_form_of_a_time_is_read(text):
    assert seconds_of(text) == 1795946400


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1795946400",
        "1795946400.",
        ".5",
        "1795946400,5",
        "1795946400.5e1",
        "-5",
        "\u0661\u0667",
        "2026-11-29",
        "2026-11-29T10:00:00",
        "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-00-01T10:00:00Z",
        "2026-11-00T10:00:00Z",
        "0000-01-01T10:00:00Z",
        "2026-11-29T24:00:00Z",
        "2026-11-29T10:60:00Z",
        "2026-11-29T10:00:00+24:00",
        "2026-11-29T10:00:00+05:60",
        "29.11.2026 10:00:00Z",
        "9" * 5000,
        True,
        None,
        [],
        {},
    ],
)
def test_a_value_that_is_no_time_or_is_ambiguous_is_not_read_as_a_time(text):
    assert seconds_of(text) is None
