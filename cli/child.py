"""Child processes that end with this one: on Linux even when this one is ended by SIGKILL.

In: a command line and the options of ``subprocess.Popen``. Out: the process. On other systems a
child outlives the SIGKILL of its parent.
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
    """Start a process, from any thread, in a session of its own.

    A terminal's Ctrl-C is for this process, which then stops its children in its own time.
    """

    def start() -> Child:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # Its one system call waits for nothing that another thread could hold.
            preexec_fn=_dies_with_parent(),  # noqa: PLW1509
            **options,
        )

    return _Forker.call(start)


def _dies_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


class _Forker(threading.Thread):
    """The one thread that forks.

    Linux kills such a child when the *thread* that forked it ends, not the process. A child
    started from a worker thread (``asyncio.to_thread``) would die with that worker; this thread
    lives as long as the process.
    """

    _lock = threading.Lock()
    _current: "_Forker | None" = None

    def __init__(self) -> None:
        super().__init__(name="forker", daemon=True)
        self._calls: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]]
        self._calls = queue.SimpleQueue()

    @classmethod
    def call(cls, start: Callable[[], Child]) -> Child:
        """Run ``start`` on the forking thread and return or raise what it does."""
        result: Future[Child] = Future()
        with cls._lock:
            # In a process made by os.fork the thread is gone, and `is_alive` says so.
            if cls._current is None or not cls._current.is_alive():
                cls._current = cls()
                cls._current.start()
            cls._current.order(start, result)
        return result.result()

    def order(self, start: Callable[[], Child], result: Future[Child]) -> None:
        """Queue one call."""
        self._calls.put((start, result))

    def run(self) -> None:
        """Serve calls for the rest of the process's life."""
        while True:
            start, result = self._calls.get()
            try:
                result.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised again where it was called
                result.set_exception(error)
