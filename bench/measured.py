"""Starts, watches and stops a measured process, and reads its CPU time.

Every wait has a time limit. If a process died, the error shows the last lines of its log.
"""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from bench.stage import BenchError, Setup
from cli.child import start_child

_STOPPED_WITHIN_S: Final = 30.0
_LAST_LINES: Final = 25
PROJECT: Final = Path(__file__).resolve().parent.parent


class Measured(ABC):
    """One process, whose files are in the folder of its ``place``."""

    name: ClassVar[str]
    """The name of the process's files."""

    def __init__(self, place: Setup) -> None:
        self.place = place
        self.log_file = place.folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line of the process."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """Return the variables to add to the environment."""

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise BenchError(f"{self.name} was not started")
        return self._process.pid

    def launch(self) -> None:
        """Start the process; its output goes to ``log_file``."""
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = start_child(
                self.command(),
                cwd=PROJECT,
                env=os.environ | self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ensure_runs(self) -> None:
        """Raise ``BenchError`` if the process has ended."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise self.failed(f"ended with exit code {code}")

    def failed(self, what: str) -> BenchError:
        """Return an error that says what happened, and shows the end of the process's log."""
        lines = self.log_file.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        shown = "\n".join(f"  {line}" for line in lines)
        return BenchError(f"{self.name} {what}. The end of its log:\n{shown}")

    def end(self) -> None:
        """Stop the process if it runs; kill it after a time limit."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.end_at_once()

    def end_at_once(self) -> None:
        """Kill the process, which then ends as in a crash; wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used; 0 outside Linux."""
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process's threads have used; 0 outside Linux."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    # The process's name may contain spaces. After the name, fields 12 and 13 are the user time and
    # the system time.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
