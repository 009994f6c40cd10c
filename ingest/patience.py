"""Implements a timeout that each request restarts, and that rarely expires.

A restart rarely creates a timer, because creating and cancelling timers for each request would be
wasteful. A restart replaces the running timer only if that timer is due after the new timeout.
If a timer fires before the timeout has expired, the next timer is created at that moment.
"""

import asyncio
from collections.abc import Callable


class Patience:
    """A timeout that calls ``lost`` when it expires."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        self._loop = loop
        self._lost = lost
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def restart(self, seconds: float) -> None:
        """Set the timeout to this many seconds from now, whatever was set before."""
        self._until = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._until:
            self._look_at(self._until)

    def end(self) -> None:
        """Cancel the timeout."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, time: float) -> None:
        self.end()
        self._timer_at = time
        self._timer = self._loop.call_at(time, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            self._look_at(self._until)
        else:
            self._lost()
