"""Starts child processes that end when this process ends.

On Linux, a child ends even if SIGKILL ends its parent. On other systems, the child keeps running in
that case.
"""

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

Child = subprocess.Popen[bytes]


def start_child(command: Sequence[str], **options: Any) -> Child:
    """Start a process in its own session; any thread may call this function.

    So a terminal's Ctrl-C reaches only the parent, and the parent then stops its children.
    """

    def start() -> Child:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # This function makes only system calls, so it needs no lock that another thread holds.
            preexec_fn=_dies_with_parent(),  # noqa: PLW1509
            **options,
        )

    return _Forker.call(start)


def _dies_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)

    return request_signal


class _Forker(threading.Thread):
    """The only thread that forks.

    Linux kills a child when its parent *thread* ends, not when its parent process ends. If a worker
    thread (``asyncio.to_thread``) started the child, the child would end together with that thread.
    The thread of this class lives as long as the process.
    """

    _lock = threading.Lock()
    _current: "_Forker | None" = None

    def __init__(self) -> None:
        super().__init__(name="forker", daemon=True)
        self._calls: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]]
        self._calls = queue.SimpleQueue()

    @classmethod
    def call(cls, start: Callable[[], Child]) -> Child:
        """Run ``start`` on the forking thread; return its result, or raise its exception."""
        result: Future[Child] = Future()
        with cls._lock:
            # After os.fork, the new process does not have this thread, so `is_alive` returns False.
            if cls._current is None or not cls._current.is_alive():
                cls._current = cls()
                cls._current.start()
            cls._current.enqueue(start, result)
        return result.result()

    def enqueue(self, start: Callable[[], Child], result: Future[Child]) -> None:
        """Queue one call."""
        self._calls.put((start, result))

    def run(self) -> None:
        """Serve calls until the process ends."""
        while True:
            start, result = self._calls.get()
            try:
                result.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised in the calling thread
                result.set_exception(error)
