"""Tracks the state of one connection to ingress, without I/O.

Input: the steps of arriving requests, and the answers that went out, as ``connection`` reports
them. Output: each new wait of the connection, when the wait begins.

Invariant: at any time, a connection has exactly one wait. It waits for the sender to finish a
request, for ingress to answer and the sender to fetch the answer, for the sender to begin the next
request, or for the sender to close::

    head ──(head complete)──▶ body ──(complete)──▶ whole ──(begun)──▶ head
      └────────────────────────┴─────────(end)───────┴──▶ ended: nothing more is read
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

# The progress of the latest request. The states are texts, because members of an Enum would take
# longer to look up.
State = Literal["head", "body", "whole", "ended"]
Event = Literal["begun", "head complete", "complete", "end"]
Wait = Literal["request", "answer", "next request", "close"]

# A connection begins in the state "head", so that the wait for its first request is limited too.
MOVES: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        ("head", "begun"): "head",
        ("head", "head complete"): "body",
        ("head", "end"): "ended",
        ("body", "complete"): "whole",
        ("body", "end"): "ended",
        ("whole", "begun"): "head",
        ("whole", "end"): "ended",
        ("ended", "end"): "ended",
    }
)

# For each state: the wait if all answers went out, and the wait if an answer is still due.
WAITS: Final[Mapping[State, tuple[Wait, Wait]]] = MappingProxyType(
    {
        "head": ("request", "request"),
        "body": ("request", "request"),
        "whole": ("next request", "answer"),
        "ended": ("close", "answer"),
    }
)


class ConnectionState:
    """The state of the latest request, and the number of requests that are not answered yet."""

    __slots__ = ("_wait", "now", "unanswered")

    def __init__(self) -> None:
        self.now: State = "head"
        self.unanswered = 0
        # The current wait; while it is ``None``, any wait counts as a new wait.
        self._wait: Wait | None = None

    def move(self, event: Event) -> None:
        """Take a step of the latest request; an illegal step is a bug, and raises ``KeyError``."""
        self.now = MOVES[self.now, event]
        if event == "begun":
            self._wait = None
        elif event == "head complete":
            self.unanswered += 1

    def answered(self) -> None:
        """Count an answer that went out."""
        self.unanswered -= 1
        self._wait = None

    def drop(self) -> None:
        """Forget the latest request, which gets no answer of its own."""
        self.unanswered -= 1

    def new_wait(self) -> Wait | None:
        """Return the wait that began after the last call, or ``None`` if there is no new wait."""
        wait = WAITS[self.now][self.unanswered > 0]
        if wait == self._wait:
            return None
        self._wait = wait
        return wait
