"""Runs the project's own commands, each in a child process.

A caller receives each line of a child's output, the child's exit code, and the last lines of the
output. A child ends when this process ends (see ``cli.child``). Every wait has a time limit.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Final, Protocol

from cli.child import start_child
from cli.errors import ProgramEndedError

STOPPED_WITHIN_S: Final = 10.0
# On a busy machine, a program's output may be read long after the program has ended.
_OUTPUT_READ_WITHIN_S: Final = 10.0
# Most tracebacks have fewer lines than this.
_LAST_LINES: Final = 40
_PACKAGES: Final = Path(__file__).resolve().parents[2]

Show = Callable[[str], None]
"""Receives one line of a program's output, on a separate thread."""


class Program(Protocol):
    """A program that runs alongside this process until the program is stopped."""

    @property
    def name(self) -> str:
        """The name in messages to the user."""

    def start(self) -> None:
        """Start the program; raise an exception if that fails."""

    def exit_code(self) -> int | None:
        """Return the exit code (negative: a signal's number); ``None`` while the program runs."""


class Command:
    """One of our own commands, such as ``worker``, as a child process."""

    def __init__(self, name: str, environment: Mapping[str, str], show: Show | None = None) -> None:
        """Take the child's whole environment, and a function that receives each output line."""
        self.name = name
        self._environment = {**environment, "PYTHONPATH": _python_path(environment)}
        self._show = show
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` before the start."""
        return self._process.pid if self._process else None

    @property
    def last_lines(self) -> list[str]:
        """The last lines of output."""
        return list(self._lines)

    def start(self) -> None:
        """Start the process."""
        self._lines.clear()
        process = start_child(
            # If -P were missing and the user's working directory had a folder named `cli`, Python
            # would run that folder.
            [sys.executable, "-P", "-m", "cli", self.name],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._process = process
        self._pump = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._pump.start()

    def exit_code(self) -> int | None:
        """Return the exit code (negative: a signal's number); ``None`` while the process runs."""
        return self._process.poll() if self._process else None

    def check_alive(self) -> None:
        """Raise ``ProgramEndedError`` if the process has ended."""
        code = self.exit_code()
        if code is not None:
            self._join()
            lines = "\n".join(f"  {line}" for line in self.last_lines)
            raise ProgramEndedError(f"{self.name} {describe_exit(code)}. Its last lines:\n{lines}")

    def terminate(self) -> None:
        """Ask the process to finish its work and stop."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    def join(self, timeout_s: float) -> None:
        """Wait until the process is gone; kill it after ``timeout_s``."""
        if self._process is None:
            return
        try:
            self._process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._join()

    def _join(self) -> None:
        # The wait has a limit, because a process that the child started may keep the pipe open.
        if self._pump is not None:
            self._pump.join(timeout=_OUTPUT_READ_WITHIN_S)

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                if self._show is not None:
                    self._show(line)


def stop_all(commands: Iterable[Command]) -> None:
    """Stop all commands at the same time; kill those that still run after ``STOPPED_WITHIN_S``.

    If an interrupt arrives during this time, such as a second Ctrl-C, all commands are killed.
    """
    stopping = list(commands)
    deadline = time.monotonic() + STOPPED_WITHIN_S
    try:
        for command in stopping:
            command.terminate()
        for command in stopping:
            command.join(deadline - time.monotonic())
    except BaseException:
        for command in stopping:
            command.kill()
        raise


def describe_exit(code: int) -> str:
    """Return how a process ended, in words.

    >>> describe_exit(1), describe_exit(-9)
    ('ended with exit code 1', 'was ended by SIGKILL')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _python_path(environment: Mapping[str, str]) -> str:
    """Return a path on which the child finds our packages, even if they are not installed."""
    given = environment.get("PYTHONPATH")
    return os.pathsep.join([str(_PACKAGES), *([given] if given else [])])
