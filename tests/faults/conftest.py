"""Provides stages for runs with faults; only a stage's proxy runs, and no other program starts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.kafka.distribution import KafkaCache
from faults.stage import FaultStage


@pytest.fixture
def describe(tmp_path: Path) -> Iterator[Callable[..., FaultStage]]:
    """Yield a function that makes a stage with ``workers`` workers, and starts its proxy."""
    with ExitStack() as stack:

        def make(workers: int, **options: bool) -> FaultStage:
            stage = FaultStage(tmp_path, KafkaCache(folder=tmp_path / "cache"), workers, **options)
            stack.enter_context(stage.proxies[0])
            return stage

        yield make
