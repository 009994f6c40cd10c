"""Summarises how long attempts took, from the sending to the complete answer or the failure.

For each outcome, the summary has the number of attempts, the median, the 99th percentile and the
maximum. Durations are rounded to three significant digits, so memory does not grow with the number
of attempts.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

_DIGITS: Final = 3
_P50: Final = 0.5
_P99: Final = 0.99


class Attempt(msgspec.Struct, frozen=True):
    """One attempt at a delivery; ``sent_s`` is a time of the monotonic clock.

    ``outcome`` is an HTTP status with the problem's code, or the reason why there was no answer.
    """

    sent_s: float
    took_s: float
    outcome: str


class OutcomeLatency(msgspec.Struct, frozen=True, kw_only=True):
    """The number of attempts with one outcome, and how long they took, in milliseconds."""

    attempts: int
    p50_ms: float
    p99_ms: float
    longest_ms: float


class Latencies:
    """Counts attempts as they end."""

    def __init__(self) -> None:
        self._by_outcome: dict[str, Counter[float]] = {}

    def note(self, attempt: Attempt) -> None:
        """Count one attempt."""
        times = self._by_outcome.setdefault(attempt.outcome, Counter())
        times[_rounded(attempt.took_s * 1000)] += 1

    def summaries(self) -> Iterator[tuple[str, OutcomeLatency]]:
        """Yield each outcome with its summary, the most frequent outcome first."""
        by_count = sorted(self._by_outcome.items(), key=lambda item: -item[1].total())
        for outcome, times in by_count:
            latency = OutcomeLatency(
                attempts=times.total(),
                p50_ms=_within(times, _P50),
                p99_ms=_within(times, _P99),
                longest_ms=max(times),
            )
            yield outcome, latency


def _within(times: Counter[float], share: float) -> float:
    """Return the shortest time within which at least this share of the attempts ended."""
    wanted = math.ceil(times.total() * share)
    for time_ms in sorted(times):
        wanted -= times[time_ms]
        if wanted <= 0:
            return time_ms
    return 0.0


def _rounded(time_ms: float) -> float:
    """Round to three significant digits: 12345.6 becomes 12300, and 1.2345 becomes 1.23."""
    if time_ms <= 0:
        return 0.0
    return round(time_ms, _DIGITS - 1 - math.floor(math.log10(time_ms)))
