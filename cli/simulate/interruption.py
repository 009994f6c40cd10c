"""Ends work early, in order: on Ctrl-C, SIGTERM, or whatever else sets an event.

In: work, and an event. Out: the work's result, or ``None``. Never: a task that goes on afterwards.
"""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Await the work; if ``stop`` is set before its end, cancel it and return ``None``."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
    return None if working.cancelled() else working.result()


@contextmanager
def signals_set(stop: asyncio.Event) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM set the event; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        stop.set()
        _remove(loop)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        _remove(loop)


def _remove(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
