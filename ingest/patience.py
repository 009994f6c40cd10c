"""A timeout that is set again by each request and rarely expires.

Input: the seconds until the timeout. Output: a call when they have passed. Invariant: most settings
make no timer, since two loop timers per request would be made and cancelled for nothing. The
running timer is replaced only if it is later than the timeout, and set again if it fires too early.
"""

import asyncio
from collections.abc import Callable


class Patience:
    """Calls ``lost`` once the time that was set last is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        self._loop = loop
        self._lost = lost
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def last(self, seconds: float) -> None:
        """Set the timeout to so many seconds from now, whatever was set before."""
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
