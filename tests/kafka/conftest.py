"""The real broker of these tests: one per session, and so one per worker of pytest-xdist."""

import os
from collections.abc import Iterator

import pytest

from cli import local
from cli.kafka import EmbeddedKafka, fetch
from cli.kafka_distribution import KafkaCache
from cli.settings import DemoSettings


@pytest.fixture(scope="session")
def kafka_cache() -> KafkaCache:
    """Return the cache of this machine. The first test of all fills it, all others find it so."""
    cache = local.kafka_cache(DemoSettings.from_environment(os.environ))
    fetch(cache)
    return cache


@pytest.fixture(scope="session")
def kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """Share one running broker. Tests tell their topics apart; who kills it starts it again."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), cache=kafka_cache) as broker:
        yield broker
