"""Latency percentiles use the nearest rank.

A result is sound if each delivery was sent on time and accepted, and each sample was seen.
"""

import math

import pytest

from bench.latency_report import RateResult, within_ms
from bench.open_load import LoadOutcome


def _latency(*, refused: int = 0, unseen: int = 0, late_s: float = 0.0) -> RateResult:
    outcome = LoadOutcome(
        sent=2, refused=refused, ack_s=[0.1, 0.1], late_s=[late_s] * 2, samples=[], unseen=unseen
    )
    return RateResult(rate_per_s=1, outcome=outcome, ingest_cpu=0, worker_cpu=0)


@pytest.mark.parametrize(
    ("share", "expected_ms"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_a_percentile_is_the_latency_at_the_nearest_rank(share: float, expected_ms: float):
    times_s = [number / 1000 for number in range(100, 0, -1)]
    assert within_ms(times_s, share) == pytest.approx(expected_ms)


def test_the_99th_percentile_of_two_latencies_is_the_longer_latency():
    assert within_ms([0.001, 0.5], 0.99) == pytest.approx(500)


def test_without_latencies_a_percentile_is_not_a_number():
    assert math.isnan(within_ms([], 0.5))


def test_a_result_is_sound_if_deliveries_were_sent_on_time_and_accepted_and_samples_were_seen():
    assert _latency().is_sound


@pytest.mark.parametrize(
    "latency", [_latency(refused=1), _latency(unseen=1), _latency(late_s=0.02)]
)
def test_a_result_is_not_sound_if_deliveries_were_refused_or_late_or_a_sample_was_not_seen(
    latency: RateResult,
):
    assert not latency.is_sound
