"""The number of records that ``dedupe`` judged in each of the last seconds, for the overview."""

import time
from collections import deque
from typing import Final

SECONDS: Final = 120


class LastSeconds:
    """The counts of the last seconds; counting began at ``since_ms``, in Unix milliseconds."""

    def __init__(self) -> None:
        self.since_ms = int(time.time() * 1000)
        self._before = 0
        self._counts: deque[int] = deque(maxlen=SECONDS)

    def second_is_over(self, total: int) -> None:
        """Record the total count at the end of a second.

        >>> seconds = LastSeconds()
        >>> for total in (3, 3, 10):
        ...     seconds.second_is_over(total)
        >>> seconds.counts
        [3, 0, 7]
        """
        self._counts.append(total - self._before)
        self._before = total

    @property
    def counts(self) -> list[int]:
        """The growth of the total count in each of the last seconds; the latest second is last."""
        return list(self._counts)
