"""Restarts programs that end, with a delay that grows with each failure in a row.

Each restart is announced. While one program waits for its restart, the others keep running.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from cli.kafka.distribution import EmbeddedKafkaError
from cli.run.programs import Program, describe_exit

Announce = Callable[[str], None]

_STEP_S: Final = 0.1


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """The delay before a program is restarted, in seconds.

    >>> [Backoff().delay_s(failures) for failures in (1, 2, 3, 4, 9)]
    [1.0, 2.0, 4.0, 8.0, 30.0]
    """

    first_s: float = 1.0
    longest_s: float = 30.0
    # After a program has run this long, its next failure counts as the first failure again.
    well_after_s: float = 60.0

    def failures(self, before: int, ran_s: float) -> int:
        """Return the number of failures in a row, after a run of ``ran_s`` seconds has failed."""
        return 1 if ran_s >= self.well_after_s else before + 1

    def delay_s(self, failures: int) -> float:
        """Return the delay after this many failures in a row; the delay doubles, up to a limit."""
        # The exponent also has a limit: after a thousand failures, the float would overflow.
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)


class _Watched:
    """A started program, its failures in a row, and the time of its planned restart or ``None``."""

    def __init__(self, program: Program, started_s: float) -> None:
        self.program = program
        self.started_s = started_s
        self.failures = 0
        self.restart_s: float | None = None


class Supervisor:
    """Watches started programs, and restarts those that end."""

    def __init__(
        self,
        programs: Iterable[Program],
        announce: Announce,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = [_Watched(program, clock()) for program in programs]
        self._announce = announce
        self._backoff = Backoff()
        self._clock = clock

    def watch(self) -> None:
        """Watch until an exception, such as an interrupt, is raised."""
        while True:
            self.step()
            time.sleep(_STEP_S)

    def step(self) -> None:
        """Restart the programs that are due, and plan a restart of those that have ended."""
        for watched in self._watched:
            if watched.restart_s is None:
                code = watched.program.exit_code()
                if code is not None:
                    self._plan_restart(watched, describe_exit(code))
            elif self._clock() >= watched.restart_s:
                self._restart(watched)

    def _restart(self, watched: _Watched) -> None:
        watched.restart_s, watched.started_s = None, self._clock()
        try:
            watched.program.start()
        except (EmbeddedKafkaError, OSError) as error:
            self._plan_restart(watched, f"can't be started: {error}")
        else:
            self._announce(f"{watched.program.name} was started again")

    def _plan_restart(self, watched: _Watched, what_happened: str) -> None:
        now = self._clock()
        watched.failures = self._backoff.failures(watched.failures, now - watched.started_s)
        delay_s = self._backoff.delay_s(watched.failures)
        watched.restart_s = now + delay_s
        name = watched.program.name
        self._announce(f"{name} {what_happened}; starting it again in {delay_s:g} s")
