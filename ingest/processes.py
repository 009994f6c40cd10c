"""Several processes on one port, for a machine that has processors to spare.

In: how many. Out: the program goes on in each of them, which is told its number; the first process
serves the metrics of all, waits for them, and ends as they do. Never: a port of which a part is
served: where one ends by itself, all do, with a code that tells whoever supervises them; or a
process that goes on without its parent.

Each takes a listener of its own on the port (SO_REUSEPORT): Linux deals new connections out among
them. They share nothing, so the bounds of one hold for each.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# By the signal itself ends who gets it before its server has begun.
_AS_TOLD: Final = (0, -signal.SIGTERM)

_log = structlog.get_logger(__name__)


def split(count: int, beside: Callable[[], None]) -> int:
    """Go on in so many new processes, and return the number of each, from 0.

    In this one, do what is to be done ``beside`` them, wait for them, and raise ``SystemExit``.
    """
    children: set[int] = set()
    alive, held = os.pipe()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()
        _terminate(children)

    ending = threading.Event()
    # A signal waits until all are there: before, it would reach some of them, or meet in a new one
    # the handler of this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    for number in _ENDING:
        signal.signal(number, end)
    for child in range(count):
        pid = os.fork()
        if pid == 0:
            _begin(alive, held)
            return child
        children.add(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    # Only now: a thread of before would not be in them. If it raises, they end with this process.
    beside()
    raise SystemExit(_wait(children, ending))


def _begin(alive: int, held: int) -> None:
    """Begin a new process: a Ctrl-C is its parent's, and so is its life."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    os.setsid()
    os.close(held)

    def end_with_parent() -> None:
        # Only the parent holds the other end: this returns when it has ended, in whatever way.
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def _wait(children: set[int], ending: threading.Event) -> int:
    """Wait until all have ended; return 0 if they were told to and did."""
    result = 0
    while children:
        pid, status = os.wait()
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if not ending.is_set():
            _log.error("process_ended", pid=pid, exit_code=code, remedy="all end; start it again")
            ending.set()
            _terminate(children)
            result = 1
        elif code not in _AS_TOLD:
            result = 1
    return result


def _terminate(children: set[int]) -> None:
    for pid in list(children):
        # One that has just ended may not have been waited for yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
