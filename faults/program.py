"""Starts, freezes and ends one program of a run with faults: an ingress or a worker.

This module records when the program was killed or frozen, how it ended, and how long the end took.
An end that no fault caused is reported.
"""

import math
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec

from cli.run.programs import Command, describe_exit
from faults.clock import ProgramClock
from faults.disk import SmallDisk
from runtime.kafka.administration import SILENT

STOPPED_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.02


class UnplannedEnd(msgspec.Struct, frozen=True):
    """A program's end that no fault caused; ``last_lines`` are the program's last output.

    ``was_ready`` is true if the program had become ready since its start.
    """

    program: str
    how: str
    during: str
    last_lines: tuple[str, ...]
    was_ready: bool = True

    @property
    def is_excused(self) -> bool:
        """Whether this end is correct: Kafka did not answer when the program started."""
        return not self.was_ready and any(SILENT in line for line in self.last_lines)


class Stop(msgspec.Struct, frozen=True):
    """A program's end after SIGTERM: how and how fast it ended, and the program's last output."""

    program: str
    at_s: float
    took_s: float
    how: str
    is_clean: bool
    last_lines: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """The end of a program that could not run, and the seconds that the program took to end."""

    program: str
    during: str
    took_s: float


class ProgramUnderFault:
    """An ingress or a worker, with the methods that faults call."""

    def __init__(self, command: Command, folder: Path, *, label: str, url: str) -> None:
        self.label = label
        self.url = url
        self.folder = folder
        # Whether a fault has ended the program, or may make it end.
        self.may_end = True
        self.disk: SmallDisk | None = None
        self.clock: ProgramClock | None = None
        self.stops: list[Stop] = []
        self._command = command
        # The spans during which the program was down after a kill, or was frozen. The last span may
        # not have ended yet.
        self._away: list[tuple[float, float]] = []
        self._restarting = threading.Lock()
        # The process that was last seen ready.
        self._ready_pid: int | None = None

    def start(self) -> None:
        """Start the program, which becomes ready some seconds later."""
        self.start_in_vain()
        self.may_end = False

    def start_in_vain(self) -> None:
        """Start the program although it can't run; its end is expected."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._command.start()
        self._is_back()

    def start_again(self, during: str) -> UnplannedEnd | None:
        """Restart the program if it has ended although no fault may end it; return this end."""
        with self._restarting:
            how = self.ended()
            if how is None or self.may_end:
                return None
            # ``join`` also waits until all output has been read.
            self._command.join(STOPPED_WITHIN_S)
            end = UnplannedEnd(self.label, how, during, self.last_lines, self.was_ready)
            self.start()
            return end

    def kill(self) -> None:
        """End the program with SIGKILL."""
        self.expect_end()
        self._is_away()
        self._command.kill()
        self._command.join(STOPPED_WITHIN_S)

    def stop(self) -> None:
        """End the program with SIGTERM, and record how long the end took."""
        self.expect_end()
        # The signal itself kills a program that is still starting, so the time of that end is not
        # recorded.
        is_up = self._trouble("/healthz") is None
        began_s = time.monotonic()
        self._command.terminate()
        # The wait is longer than the limit, so that an end that exceeds the limit is still
        # measured.
        self._command.join(2 * STOPPED_WITHIN_S)
        took_s, code = time.monotonic() - began_s, self._command.exit_code()
        if is_up:
            how = self.ended() or ""
            stop = Stop(self.label, began_s, took_s, how, code == 0, self.last_lines)
            self.stops.append(stop)

    def start_if_ended(self) -> None:
        """Restart the program if it has ended as expected; otherwise stop expecting its end."""
        if self.ended():
            self.start()
        self.may_end = False

    def open_files(self) -> int:
        """Return how many files the running program has open."""
        return len(list(Path(f"/proc/{self._command.pid}/fd").iterdir()))

    def limit_files(self, most: int) -> None:
        """Lower the running process's limit on open files; the process can't raise the limit."""
        if self._command.pid is not None:
            resource.prlimit(self._command.pid, resource.RLIMIT_NOFILE, (most, most))

    def expect_end(self) -> None:
        """From now on, do not restart the program when it ends."""
        with self._restarting:
            self.may_end = True

    def freeze(self) -> None:
        """Suspend the program with SIGSTOP; its connections stay open."""
        self._is_away()
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the program with SIGCONT."""
        self._signal(signal.SIGCONT)
        self._is_back()

    def was_away(self, since_s: float, until_s: float) -> bool:
        """Return whether the program was down or frozen at any moment between two times."""
        return any(began <= until_s and since_s <= ended for began, ended in self._away)

    def wait_ended(self, within_s: float) -> bool:
        """Wait for the program to end; return whether it ended."""
        deadline = time.monotonic() + within_s
        while self.ended() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        # ``join`` also waits until all output has been read.
        self._command.join(STOPPED_WITHIN_S)
        return True

    def ended(self) -> str | None:
        """Return how the program ended; ``None`` while it runs."""
        code = self._command.exit_code()
        return None if code is None else describe_exit(code)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the program printed."""
        return tuple(self._command.last_lines)

    @property
    def was_ready(self) -> bool:
        """Whether the program was seen ready since its start."""
        return self._ready_pid is not None and self._ready_pid == self._command.pid

    def note_if_ready(self) -> None:
        """Ask the readiness probe, if the program runs and has not been seen ready yet."""
        if self._command.pid is not None and self.ended() is None and not self.was_ready:
            self.not_ready()

    def not_ready(self) -> str | None:
        """Ask the readiness probe; return its answer, or ``None`` if the program is ready."""
        pid = self._command.pid
        trouble = self._trouble("/readyz")
        if trouble is None:
            self._ready_pid = pid
        return trouble

    def _trouble(self, path: str) -> str | None:
        """Ask a probe; return ``None`` if the answer is good, otherwise the trouble."""
        try:
            answer = httpx.get(f"{self.url}{path}", timeout=2.0, trust_env=False)
        except httpx.HTTPError as error:
            return f"no answer: {error!r}"
        return None if answer.is_success else f"{answer.status_code} {answer.text}"

    def _is_away(self) -> None:
        self._away.append((time.monotonic(), math.inf))

    def _is_back(self) -> None:
        if self._away and self._away[-1][1] == math.inf:
            self._away[-1] = (self._away[-1][0], time.monotonic())

    def _signal(self, number: signal.Signals) -> None:
        if self._command.pid is not None and self.ended() is None:
            os.kill(self._command.pid, number)

    def end(self) -> None:
        """End the program with SIGTERM if it still runs, even if it is frozen."""
        self.go_on()
        if self.ended() is None:
            self.stop()
