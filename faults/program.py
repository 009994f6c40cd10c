"""A program of a run with faults, an ingress or a worker, and what a fault may do to it.

In: how it is started. Out: its life, as a supervisor and a judge need it: when it was away, how it
ended, how long that took. Never: an end that nobody planned and that is not told.
"""

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec

from cli.run.programs import Command, describe_exit
from faults.disk import SmallDisk

STOPPED_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.02
_NO_KAFKA: Final = "Kafka does not answer"


class UnplannedEnd(msgspec.Struct, frozen=True):
    """A program ended, and no fault had ended it; ``last_lines`` are what it printed.

    ``was_ready``: it had been, since its start.
    """

    program: str
    how: str
    during: str
    last_lines: tuple[str, ...]
    was_ready: bool = True

    @property
    def is_excused(self) -> bool:
        """Whether it found no Kafka when it started: then it says so and ends, as it should."""
        return not self.was_ready and any(_NO_KAFKA in line for line in self.last_lines)


class Stop(msgspec.Struct, frozen=True):
    """A program was told to end by SIGTERM: how long that took, and how it ended."""

    program: str
    at_s: float
    took_s: float
    how: str
    is_clean: bool


class ProgramUnderFault:
    """An ingress or a worker, with what a fault may do to it."""

    def __init__(self, command: Command, folder: Path, *, label: str, url: str) -> None:
        self.label = label
        self.url = url
        self.folder = folder
        # Whether a fault has ended it, or may make it end.
        self.may_end = True
        self.disk: SmallDisk | None = None
        self.stops: list[Stop] = []
        self._command = command
        # What it was killed or frozen for, on the monotonic clock; the last one may go on.
        self._away: list[tuple[float, float]] = []
        self._restarting = threading.Lock()
        # The process that was ready at some time.
        self._ready_pid: int | None = None

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        self.start_in_vain()
        self.may_end = False

    def start_in_vain(self) -> None:
        """Start it where it can't run: that it ends is what is expected."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._command.start()
        self._is_back()

    def start_again(self, during: str) -> UnplannedEnd | None:
        """Start it if it has ended and no fault had ended it; return what is to be told of that."""
        with self._restarting:
            how = self.ended()
            if how is None or self.may_end:
                return None
            # Until all that it printed is read.
            self._command.join(STOPPED_WITHIN_S)
            end = UnplannedEnd(self.label, how, during, self.last_lines, self.was_ready)
            self.start()
            return end

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.expect_end()
        self._is_away()
        self._command.kill()
        self._command.join(STOPPED_WITHIN_S)

    def stop(self) -> None:
        """End it by SIGTERM, and note how long that took."""
        self.expect_end()
        # One that is only being started has nothing in its hands, and ends by the signal itself.
        is_up = self._trouble("/healthz") is None
        began_s = time.monotonic()
        self._command.terminate()
        # Longer than it may take, so that the truth is seen.
        self._command.join(2 * STOPPED_WITHIN_S)
        took_s, code = time.monotonic() - began_s, self._command.exit_code()
        if is_up:
            how = self.ended() or ""
            self.stops.append(Stop(self.label, began_s, took_s, how, is_clean=code == 0))

    def expect_end(self) -> None:
        """Leave it as it is when it ends."""
        with self._restarting:
            self.may_end = True

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP): its connections stay open."""
        self._is_away()
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._is_back()

    def was_away(self, since_s: float, until_s: float) -> bool:
        """Tell whether it was killed or frozen at any time between."""
        return any(began <= until_s and since_s <= ended for began, ended in self._away)

    def wait_ended(self, within_s: float) -> bool:
        """Wait until it has ended; return whether it did."""
        deadline = time.monotonic() + within_s
        while self.ended() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        # Until all that it printed is read.
        self._command.join(STOPPED_WITHIN_S)
        return True

    def ended(self) -> str | None:
        """Say how it ended; ``None`` while it runs."""
        code = self._command.exit_code()
        return None if code is None else describe_exit(code)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What it printed last."""
        return tuple(self._command.last_lines)

    @property
    def was_ready(self) -> bool:
        """Whether somebody has seen it ready since its start."""
        return self._ready_pid is not None and self._ready_pid == self._command.pid

    def note_if_ready(self) -> None:
        """Ask its readiness probe, if it runs and was not seen ready yet."""
        if self._command.pid is not None and self.ended() is None and not self.was_ready:
            self.not_ready()

    def not_ready(self) -> str | None:
        """Ask its readiness probe; return what it answered, or ``None`` if it is ready."""
        pid = self._command.pid
        trouble = self._trouble("/readyz")
        if trouble is None:
            self._ready_pid = pid
        return trouble

    def _trouble(self, path: str) -> str | None:
        """Ask one of its probes; return the bad answer, or why there is none."""
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
        """End it, frozen or not, as its supervisor would; nothing if it has ended."""
        self.go_on()
        if self.ended() is None:
            self.stop()
