"""How long ingress took to answer, as the sender measured it while everything breaks.

In: each attempt as it ends. Out: the longest of a fault, and those that came too late. Never: an
attempt that ingress could not answer, since a fault had killed or frozen it meanwhile.
"""

from typing import Final

from cli.simulate.latency import Attempt
from faults.program import ProgramUnderFault

_WITHIN_S: Final = 10.0


class Answers:
    """Hears every attempt; ``judged`` counts, ``late`` has those over ``within_s``, a line each.

    ``slack`` stretches what is allowed, for a machine that is busy with other things.
    """

    def __init__(self, ingest: ProgramUnderFault, slack: float = 1.0) -> None:
        self._ingest = ingest
        self.within_s = _WITHIN_S * slack
        self.judged = 0
        self.longest_s = 0.0
        self.late: list[str] = []
        self._of_fault_s = 0.0

    def hear(self, attempt: Attempt) -> None:
        """Judge one attempt that is over, also one that ended without an answer."""
        if self._ingest.was_away(attempt.sent_s, attempt.sent_s + attempt.took_s):
            return
        self.judged += 1
        self.longest_s = max(self.longest_s, attempt.took_s)
        self._of_fault_s = max(self._of_fault_s, attempt.took_s)
        if attempt.took_s > self.within_s:
            self.late.append(
                f"ingress was there all the time, and a delivery took {attempt.took_s:.1f} s "
                f"({attempt.outcome}): expected an answer within {self.within_s:g} s"
            )

    def begin_fault(self) -> None:
        """From now on ``of_fault_s`` counts anew."""
        self._of_fault_s = 0.0

    @property
    def of_fault_s(self) -> float:
        """The longest attempt that ended since the fault began."""
        return self._of_fault_s
