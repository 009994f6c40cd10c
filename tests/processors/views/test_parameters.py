"""Times in query parameters are read to the millisecond."""

from types import SimpleNamespace

import pytest

from processors.views.parameters import time_ms


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        ("1767225600", 1_767_225_600_000),
        ("1767225600.001", 1_767_225_600_001),
        ("1767225600.999", 1_767_225_600_999),
        ("2026-01-01T00:00:00.001Z", 1_767_225_600_001),
        ("2026-01-01T05:00:00.123+05:00", 1_767_225_600_123),
    ],
)
def test_a_time_is_the_same_millisecond_however_it_is_written(given, ms):
    assert time_ms(SimpleNamespace(query={"as_of": given}), "as_of") == ms


def test_every_millisecond_of_a_second_is_read_exactly():
    for part in range(1000):
        request = SimpleNamespace(query={"as_of": f"1767225600.{part:03}"})
        assert time_ms(request, "as_of") == 1_767_225_600_000 + part
