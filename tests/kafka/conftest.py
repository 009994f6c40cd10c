"""Starts the real broker of these tests.

Each session of pytest has its own broker. Each process of pytest-xdist runs its own session.

Each module that tests the views runs two workers of one ledger. Each worker has about half of the
partitions, so about half of the requests to a worker concern rows that the other worker has.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka, fetch
from cli.kafka.distribution import KafkaCache
from cli.run import local
from cli.settings import DemoSettings
from processors.settings import WorkerSettings
from runtime.kafka.topics import ensure_topics
from tests.kafka.answers import NOW_S, SECRET, TOKEN, deliver, event, paid, refunded
from tests.kafka.harness import environment, two_workers, wait_folded


@pytest.fixture(scope="session")
def kafka_cache() -> KafkaCache:
    """Return this machine's cache of Kafka's files; fetch the files if the cache is empty."""
    cache = local.kafka_cache(DemoSettings.from_environment(os.environ))
    fetch(cache)
    return cache


@pytest.fixture(scope="session")
def kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """Run one broker for all tests of the session.

    Each test has its own topics. A test that kills the broker also restarts it.
    """
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), cache=kafka_cache) as broker:
        yield broker


@pytest.fixture(scope="module")
def usual_kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """Run a broker that creates a topic when a client first names it, as Kafka does by default."""
    folder = tmp_path_factory.mktemp("usual")
    properties = {"auto.create.topics.enable": "true"}
    with EmbeddedKafka(folder, cache=kafka_cache, properties=properties) as broker:
        yield broker


@pytest.fixture
async def settings(kafka: EmbeddedKafka, tmp_path: Path) -> WorkerSettings:
    """Create the topics, and return the settings of a worker that has no standbys."""
    env = environment(kafka.bootstrap, tmp_path, standby_replicas=0)
    made = WorkerSettings.from_environment(env)
    await ensure_topics(made)
    return made


@pytest.fixture(scope="module")
def envs(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Run two workers of one ledger; yield the environment of each."""
    one = environment(
        kafka.bootstrap,
        tmp_path_factory.mktemp("answers"),
        api_token=TOKEN,
        webhook_secrets=SECRET,
    )
    with two_workers(one, tmp_path_factory.mktemp("other")) as (first, second):
        yield first.env, second.env


@pytest.fixture(params=[0, 1], ids=["one worker", "the other"])
def env(envs: tuple[dict[str, str], dict[str, str]], request: pytest.FixtureRequest) -> Any:
    return envs[request.param]


@pytest.fixture(scope="module")
def story(envs: tuple[dict[str, str], dict[str, str]]) -> dict[str, str]:
    """Deliver the events of the order ``ord/1``.

    A payment fails, then succeeds, and is refunded twice, by more than its amount. One delivery is
    a duplicate, and one delivery reuses an event id with a different amount. A second payment moves
    to a different order.
    """
    env = envs[0]
    failed = event(
        "evt_failed", "payment.failed", "pay_1", 500, created=NOW_S - 9, merchantReference="ord/1"
    )
    deliver(env, failed, at_s=NOW_S - 600)
    deliver(env, paid("evt_paid", "pay_1", "ord/1"), at_s=NOW_S - 500)
    deliver(env, refunded("evt_refund", "re_1", "pay_1"), at_s=NOW_S - 400)
    deliver(env, paid("evt_left", "pay_2", "ord/1", 70, created=NOW_S - 5), at_s=NOW_S - 350)
    deliver(env, paid("evt_moves", "pay_2", "ord 2", 70, created=NOW_S - 8), at_s=NOW_S - 320)
    deliver(env, paid("evt_paid", "pay_1", "ord/1"), at_s=NOW_S - 300)
    deliver(env, paid("evt_paid", "pay_1", "ord/1", 999), at_s=NOW_S - 250)
    deliver(env, refunded("evt_more", "re_2", "pay_1", 450), at_s=NOW_S - 200)
    wait_folded(env)
    return env
