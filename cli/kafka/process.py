"""What the embedded Kafka needs of the operating system: a child, a lock, a port.

Comes in: a command line; a folder; a port.
Goes out: a child process; a lock that a child carries on; a port that is free.
Never: anything that knows what Kafka is.
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

# Ports that this process has given out, whether or not anybody listens on them yet.
_given: set[int] = set()

# Nothing of our environment reaches a child: neither its secrets, nor options for another Java.
# The locale lets a JVM read a folder's name that is not ASCII.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


def spawn(command: list[str], *, log_file: Path, inherit: int | None = None) -> Child:
    """Start `command`, its output appended to `log_file`; `inherit` is a descriptor it keeps."""
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
    """Return a port of 127.0.0.1 that nobody listens on; each call returns another one.

    It lies below the range from which systems take the ports of outgoing connections: there, a
    client that keeps dialling a stopped broker can end up connected to itself, and hold the port.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(KafkaPortTakenError):
            require_free(port)
            if port not in _given:
                _given.add(port)
                return port
