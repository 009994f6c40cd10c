"""What this worker has judged since it was started, for people who watch.

In: what `dedupe` made of a chunk, once it is written. Out: counts by outcome, by type and by
reason, and how many records there were in each of the last seconds. Never: a cost for each record;
and never more names than a few: whoever has the secret may name as many types as he likes.
"""

import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

SECONDS: Final = 120
_MOST_TYPES: Final = 20
_OTHER: Final = "other"


class Counts:
    """Counts of records of the log of record; ``since_ms`` is Unix milliseconds."""

    def __init__(self) -> None:
        self.since_ms = int(time.time() * 1000)
        self.outcomes: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self._this_second = 0
        self._seconds: deque[int] = deque(maxlen=SECONDS)

    def judged(self, counts: Mapping[str, int], folded: Mapping[str, int]) -> None:
        """Count a chunk: by outcome as ``ledger.deduplication`` names it, and what folds by type.

        >>> counts = Counts()
        >>> counts.judged({"folded": 2, "rejected.id_missing": 1}, {"payment.succeeded": 2})
        >>> dict(counts.outcomes), dict(counts.rejected)
        ({'folded': 2, 'rejected': 1}, {'id_missing': 1})
        """
        for name, number in counts.items():
            outcome, _, detail = name.partition(".")
            self.outcomes[outcome] += number
            self._this_second += number
            if outcome == "rejected":
                self.rejected[detail] += number
            elif outcome == "unfolded":
                self._add_type(detail, number)
        for name, number in folded.items():
            self._add_type(name, number)

    def second_is_over(self) -> None:
        """Begin to count the next second."""
        self._seconds.append(self._this_second)
        self._this_second = 0

    @property
    def per_second(self) -> list[int]:
        """How many records there were in each of the last seconds, the latest one last."""
        return list(self._seconds)

    def _add_type(self, name: str, number: int) -> None:
        is_known = name in self.types or len(self.types) < _MOST_TYPES
        self.types[name if is_known else _OTHER] += number
