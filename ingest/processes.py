"""Runs ingress in several processes on one port, for a machine with processors to spare.

Input: the number of processes. Output: the program continues in each new process, with that
process's number. The first process serves the metrics, and waits for the others. Invariants: if one
process ends by itself, all end, with a failure's exit code; no process outlives its parent.

Each process opens its own listener on the port (SO_REUSEPORT), and Linux spreads new connections
over the listeners. The processes share nothing else, so each has its own limits.
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
# SIGTERM itself kills a process whose server has not started, hence the negative exit code.
_CLEAN: Final = (0, -signal.SIGTERM)

_log = structlog.get_logger(__name__)


def split(count: int, in_parent: Callable[[], None]) -> int:
    """Fork ``count`` processes; in each of them, return its number, starting from 0.

    The parent calls ``in_parent``, waits for the others, and raises ``SystemExit``.
    """
    children: set[int] = set()
    alive, held = os.pipe()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()
        _terminate(children)

    ending = threading.Event()
    # Signals wait until all processes exist. An earlier signal would reach only some of them, or
    # run the parent's handler in a new process.
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
    # Threads do not survive a fork, so ``in_parent``, which may start some, is called only now. If
    # the call raises, the others end with this process.
    in_parent()
    raise SystemExit(_wait(children, ending))


def _begin(alive: int, held: int) -> None:
    """Set up a new process, which ignores Ctrl-C and ends with its parent."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    os.setsid()
    os.close(held)

    def end_with_parent() -> None:
        # Only the parent has the pipe's other end, so this call returns once the parent has ended.
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def _wait(children: set[int], ending: threading.Event) -> int:
    """Wait until all processes have ended; return 0 if each ended cleanly after a signal."""
    result = 0
    while children:
        pid, status = os.wait()
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if not ending.is_set():
            _log.error("process_ended", pid=pid, exit_code=code, remedy="all end; restart ingress")
            ending.set()
            _terminate(children)
            result = 1
        elif code not in _CLEAN:
            result = 1
    return result


def _terminate(children: set[int]) -> None:
    for pid in list(children):
        # A process that has just ended may not have been waited for yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
