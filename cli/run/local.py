"""Starts and stops programs on this machine, and handles the signals that stop them.

Ingress and worker stop first and Kafka last, so that ingress can write accepted deliveries and the
worker can commit.
"""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import httpx

from cli.errors import NotReadyError
from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache, default_cache_folder
from cli.run.programs import Command, stop_all
from cli.settings import DemoSettings

T = TypeVar("T")

READY_WITHIN_S: Final = 60.0
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_POLL_S: Final = 0.1
_PROBE_WITHIN_S: Final = 5.0


class KafkaProgram:
    """The embedded Kafka as a program that a supervisor can watch."""

    name = "kafka"

    def __init__(self, broker: EmbeddedKafka) -> None:
        self._broker = broker

    def start(self) -> None:
        """Start the broker and wait until it serves clients."""
        self._broker.start()

    def exit_code(self) -> int | None:
        """Return the exit code; ``None`` while the broker runs."""
        return self._broker.poll()


def kafka_cache(settings: DemoSettings) -> KafkaCache:
    """Return the cache for the embedded Kafka, which is downloaded only once."""
    return KafkaCache(folder=settings.kafka_cache or default_cache_folder(os.environ))


@contextmanager
def running(commands: list[tuple[Command, str]]) -> Iterator[None]:
    """Start commands, wait until their readiness probes succeed, and stop them after the block."""
    try:
        for command, _ in commands:
            command.start()
        deadline = time.monotonic() + READY_WITHIN_S
        for command, probe in commands:
            _wait_until_ready(command, probe, deadline)
        yield
    finally:
        stop_all(command for command, _ in commands)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Make SIGTERM end the block as Ctrl-C does, with a ``KeyboardInterrupt``."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_ready(command: Command, probe: str, deadline: float) -> None:
    while (answer := _probe(probe)) is not None:
        command.check_alive()
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"{command.name} is not ready after {READY_WITHIN_S:.0f} s; {probe}: {answer}"
            )
        time.sleep(_POLL_S)


def _probe(url: str) -> str | None:
    """Return the reason why a program is not ready; ``None`` if the program is ready."""
    try:
        # The user's proxy and .netrc must not affect requests to loopback.
        response = httpx.get(url, timeout=_PROBE_WITHIN_S, trust_env=False)
    except httpx.HTTPError as error:
        return f"no answer ({error})"
    return None if response.is_success else f"{response.status_code} {response.text:.200}"


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Await the work; if ``stop`` is set first, cancel the work and return ``None``."""
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
    """Let the first Ctrl-C or SIGTERM set the event; a second signal ends the process as usual."""
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        stop.set()
        _remove_handlers(loop)

    for number in _STOPPING:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        _remove_handlers(loop)


def _remove_handlers(loop: asyncio.AbstractEventLoop) -> None:
    for number in _STOPPING:
        loop.remove_signal_handler(number)
