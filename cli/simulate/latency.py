"""How long attempts took: from the moment of sending until the answer was whole, or there was none.

In: attempts. Out: by outcome how many, and half of them, 99 % and all within what time. Never: more
memory for more attempts: they are counted by the time that they took, to three digits.
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
    """One attempt: sent when, on the monotonic clock, over after how long, and with what.

    ``outcome`` is a status with its code, or why there was no answer.
    """

    sent_s: float
    took_s: float
    outcome: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts with one outcome, in milliseconds."""

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

    def summaries(self) -> Iterator[tuple[str, Latency]]:
        """Yield each outcome with its times, the most frequent one first."""
        by_count = sorted(self._by_outcome.items(), key=lambda item: -item[1].total())
        for outcome, times in by_count:
            yield (
                outcome,
                Latency(
                    attempts=times.total(),
                    p50_ms=_within(times, _P50),
                    p99_ms=_within(times, _P99),
                    longest_ms=max(times),
                ),
            )


def _within(times: Counter[float], share: float) -> float:
    """Return the time within which that share of the attempts was over."""
    wanted = math.ceil(times.total() * share)
    for time_ms in sorted(times):
        wanted -= times[time_ms]
        if wanted <= 0:
            return time_ms
    return 0.0


def _rounded(time_ms: float) -> float:
    """Round to three digits, as 12345.6 to 12300 and 1.2345 to 1.23."""
    if time_ms <= 0:
        return 0.0
    return round(time_ms, _DIGITS - 1 - math.floor(math.log10(time_ms)))
