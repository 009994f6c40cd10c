"""Judges the answer times of ingress, which the sender measures while faults are injected.

An attempt is skipped if a fault killed or froze ingress during the attempt.
"""

from typing import Final

from cli.simulate.latency import Attempt
from faults.program import ProgramUnderFault

_WITHIN_S: Final = 10.0


class Answers:
    """The judged attempts; ``late`` has a line for each attempt that took over ``within_s``.

    ``slack`` multiplies the limit, for a machine that is busy with other work.
    """

    def __init__(self, ingest: ProgramUnderFault, slack: float = 1.0) -> None:
        self._ingest = ingest
        self.within_s = _WITHIN_S * slack
        self.judged = 0
        self.longest_s = 0.0
        self.late: list[str] = []
        self._of_fault_s = 0.0

    def judge(self, attempt: Attempt) -> None:
        """Judge one attempt that has ended, with or without an answer."""
        if self._ingest.was_away(attempt.sent_s, attempt.sent_s + attempt.took_s):
            return
        self.judged += 1
        self.longest_s = max(self.longest_s, attempt.took_s)
        self._of_fault_s = max(self._of_fault_s, attempt.took_s)
        if attempt.took_s > self.within_s:
            self.late.append(
                f"ingress was up the whole time, but a delivery took {attempt.took_s:.1f} s "
                f"({attempt.outcome}): expected an answer within {self.within_s:g} s"
            )

    def begin_fault(self) -> None:
        """Reset ``of_fault_s`` to zero."""
        self._of_fault_s = 0.0

    @property
    def of_fault_s(self) -> float:
        """The duration of the longest attempt that has ended since the fault began."""
        return self._of_fault_s
