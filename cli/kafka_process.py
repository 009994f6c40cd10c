"""What the embedded Kafka needs of the operating system: children that die with us, locks, ports.

Comes in: a command line; a folder; a port.
Goes out: a child process; a lock that a child carries on; a port that is free.
Never: anything that knows what Kafka is.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from cli.kafka_distribution import KafkaFolderInUseError, KafkaPortTakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "127.0.0.1"

# Nothing of our environment reaches a child: neither its secrets, nor options for another Java.
# The locale lets a JVM read a folder's name that is not ASCII.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Child = subprocess.Popen[bytes]


def spawn(command: list[str], *, log_file: Path, inherit: int | None = None) -> Child:
    """Start `command`, its output appended to `log_file`, and have it die when this process dies.

    `inherit` is a file descriptor the child keeps. On systems other than Linux a child survives
    the SIGKILL of its parent.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

    def fork() -> Child:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=log_file.parent,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=() if inherit is None else (inherit,),
                # A terminal's Ctrl-C is for us; we then stop the child in our own time.
                start_new_session=True,
                # Its one system call waits for nothing that another thread could hold.
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    return _Forker.call(fork)


class _Forker(threading.Thread):
    """The one thread that forks.

    Linux kills such a child when the *thread* that forked it ends, not the process. A child
    started from a worker thread (`asyncio.to_thread`) would die with that worker; this thread
    lives as long as the process.
    """

    _lock = threading.Lock()
    _current: _Forker | None = None

    def __init__(self) -> None:
        super().__init__(name="kafka-forker", daemon=True)
        self._calls: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]]
        self._calls = queue.SimpleQueue()

    @classmethod
    def call(cls, fork: Callable[[], Child]) -> Child:
        """Run `fork` on the forking thread and return or raise what it does."""
        result: Future[Child] = Future()
        with cls._lock:
            # In a process made by os.fork the thread is gone, and `is_alive` says so.
            if cls._current is None or not cls._current.is_alive():
                cls._current = cls()
                cls._current.start()
            cls._current.order(fork, result)
        return result.result()

    def order(self, fork: Callable[[], Child], result: Future[Child]) -> None:
        """Queue one call."""
        self._calls.put((fork, result))

    def run(self) -> None:
        """Serve calls for the rest of the process's life."""
        while True:
            fork, result = self._calls.get()
            try:
                result.set_result(fork())
            except BaseException as error:  # noqa: BLE001 - raised again where it was called
                result.set_exception(error)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Hold `folder`/broker.lock; yield its file descriptor, for a child to inherit.

    The lock belongs to everyone who has the descriptor open: a child that inherits it holds the
    folder for exactly as long as it lives. Raises KafkaFolderInUseError.
    """
    lock = os.open(folder / "broker.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode().strip() or "just starting"
            raise KafkaFolderInUseError(
                f"The folder {folder} belongs to a running Kafka (pid {holder}). "
                "Stop that one first, or choose another folder."
            ) from None
        os.ftruncate(lock, 0)
        yield lock
    finally:
        os.close(lock)


def require_free(port: int) -> None:
    """Raise KafkaPortTakenError if somebody listens on `port` of 127.0.0.1."""
    with socket.socket() as candidate:
        # Connections of a broker that has just ended do not count, nor do they for Kafka.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError as error:
            raise KafkaPortTakenError(
                f"Kafka cannot listen on {HOST}:{port}: {error.strerror}. "
                "Choose another port, or 0 for a free one."
            ) from error


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on.

    It lies below the range from which systems take the ports of outgoing connections: there, a
    client that keeps dialling a stopped broker can end up connected to itself, and hold the port.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(KafkaPortTakenError):
            require_free(port)
            return port
