"""Warns of a wrong clock if the time in a good signature is the only reason for a refusal.

Input: deliveries that are refused only for the time in their signature. Output: at most one warning
a minute, and the clock's difference from that time, in seconds, for the metrics. A replayed
delivery is refused in the same way, so a single delivery does not prove that a clock is wrong.
"""

import time
from typing import Final

import structlog

from ingest.metrics import ProcessCounts
from ledger.signature import signed_at_s

_WARNED_EVERY_S: Final = 60.0

_log = structlog.get_logger(__name__)


class ClockDoubt:
    """Compares the times of refused deliveries with this machine's clock."""

    __slots__ = ("_counts", "_warned_at_s")

    def __init__(self, counts: ProcessCounts) -> None:
        self._counts = counts
        self._warned_at_s = -_WARNED_EVERY_S

    def note(self, header: str, received_at_ms: int) -> None:
        """Record a delivery that was refused only for its time."""
        off_s = received_at_ms // 1000 - signed_at_s(header)
        self._counts.signed_at_another_time(off_s)
        now_s = time.monotonic()
        if now_s - self._warned_at_s < _WARNED_EVERY_S:
            return
        self._warned_at_s = now_s
        _log.warning(
            "clock_may_be_wrong",
            seconds_off=off_s,
            reason=f"a delivery with a good signature was signed {abs(off_s)} s "
            f"{'before' if off_s > 0 else 'after'} the time that this machine's clock shows",
            remedy="compare this machine's clock with a time server (NTP), and then the sender's; "
            "a single delivery may be a replay",
        )
