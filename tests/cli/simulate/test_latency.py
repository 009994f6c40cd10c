"""The latencies of attempts are reported by outcome, with three significant digits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.simulate.latency import Attempt, Latencies, OutcomeLatency


def summaries(*times: tuple[str, float]) -> dict[str, OutcomeLatency]:
    latencies = Latencies()
    for outcome, took_s in times:
        latencies.note(Attempt(0.0, took_s, outcome))
    return dict(latencies.summaries())


def test_the_percentiles_of_a_hundred_attempts_are_the_50th_and_the_99th_shortest_time():
    found = summaries(*(("200", n / 1000) for n in range(1, 101)))
    assert found == {"200": OutcomeLatency(attempts=100, p50_ms=50, p99_ms=99, longest_ms=100)}


def test_each_outcome_is_reported_separately_and_the_most_frequent_outcome_is_first():
    found = summaries(("503", 9.0), ("200", 0.0123456), ("200", 0.01))
    assert list(found) == ["200", "503"]
    assert found["200"] == OutcomeLatency(attempts=2, p50_ms=10, p99_ms=12.3, longest_ms=12.3)


def test_if_there_was_no_attempt_nothing_is_reported():
    assert summaries() == {}


@given(st.lists(st.floats(0, 100), min_size=1))
def test_the_times_of_an_outcome_ascend_and_are_exact_to_three_digits(times):
    (found,) = summaries(*(("200", each) for each in times)).values()
    assert found.attempts == len(times)
    assert found.p50_ms <= found.p99_ms <= found.longest_ms
    assert found.longest_ms == pytest.approx(max(times) * 1000, rel=0.005)
