"""Starts child processes, locks folders and finds free ports for the embedded Kafka.

Nothing here depends on Kafka itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import subprocess
from typing import TYPE_CHECKING

from cli.child import Child, start_child
from cli.kafka.distribution import KafkaFolderInUseError, KafkaPortTakenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"

# The ports that `free_port` has returned, even if no program listens on them yet.
_returned: set[int] = set()

# A child gets no variable of our environment, because some variables contain secrets, or options
# for a different Java. The locale lets a JVM read folder names that are not ASCII.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


def spawn(command: list[str], *, log_file: Path, inherit: int | None = None) -> Child:
    """Start `command`, and append its output to `log_file`; the child keeps `inherit` open."""
    with log_file.open("ab") as log:
        return start_child(
            command,
            cwd=log_file.parent,
            env=_ENVIRONMENT,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=() if inherit is None else (inherit,),
        )


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Lock `folder`/broker.lock, and yield the lock's file descriptor, which a child may inherit.

    The lock lasts until every process has closed the descriptor. So if a child inherits the
    descriptor, the folder stays locked until the child ends. Raises KafkaFolderInUseError.
    """
    lock = os.open(folder / "broker.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode().strip() or "just starting"
            raise KafkaFolderInUseError(
                f"The folder {folder} belongs to a running Kafka (pid {holder}). "
                "Stop that Kafka first, or choose another folder."
            ) from None
        os.ftruncate(lock, 0)
        yield lock
    finally:
        os.close(lock)


def require_free(port: int) -> None:
    """Raise KafkaPortTakenError if a program listens on `port` of 127.0.0.1."""
    with socket.socket() as candidate:
        # Kafka also sets this option, so old connections of a broker that has ended block no port.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError as error:
            raise KafkaPortTakenError(
                f"Kafka cannot listen on {HOST}:{port}: {error.strerror}. "
                "Choose another port, or port 0, which means any free port."
            ) from error


def free_port() -> int:
    """Return a free port of 127.0.0.1; each call returns a different port.

    The port's number is lower than the numbers that the system gives to outgoing connections. If a
    broker's port had such a number, a client that keeps dialling the stopped broker could connect
    to itself and block the port.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(KafkaPortTakenError):
            require_free(port)
            if port not in _returned:
                _returned.add(port)
                return port
