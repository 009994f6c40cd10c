"""Mistakes of an operator lose no event on a cluster of three brokers, each with every record.

The mistakes are those of `test_names.py`, `test_wrong_places.py`, `test_operator.py` and
`test_deleted_topics.py`. Here a broker is down, or all brokers create missing topics, which is
Kafka's default. Unclean elections have a cluster of their own, in `test_unclean.py`.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import HEAP_MB, KafkaCluster
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.kafka.properties import Node
from tests.kafka.answers import deliver, paid
from tests.kafka.harness import (
    WorkerProcess,
    commit,
    copy_of,
    deliver_held,
    environment,
    group_of,
    names_of,
    positions,
    read_topic,
    run,
    until,
    wait_folded,
)
from tests.kafka.programs import ask_ingress, program, wait_ingress
from tests.kafka.topics import delete, describe
from tests.kafka.verification import deliveries

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def cluster(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """Run three brokers that create missing topics, which is Kafka's default."""

    def make(folder: Path, node: Node) -> EmbeddedKafka:
        usual = {"auto.create.topics.enable": "true"}
        return EmbeddedKafka(
            folder, cache=kafka_cache, heap_mb=HEAP_MB, node=node, properties=usual
        )

    with KafkaCluster(tmp_path_factory.mktemp("cluster"), make) as started:
        yield started


@pytest.fixture
def env(cluster: KafkaCluster, tmp_path: Path) -> dict[str, str]:
    return environment(
        cluster.bootstrap,
        tmp_path / "ledger",
        replication_factor=3,
        min_insync_replicas=2,
        standby_replicas=0,
        allow_unsigned="true",
        ingest_port=free_port(),
        answer_within_s=4,
    )


async def coordinator_of(env: dict[str, str]) -> int:
    """Return the number of the broker that coordinates the workers' group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"].split(","))
    await admin.start()
    try:
        return int(await admin.find_coordinator(group_of(env)))
    finally:
        await admin.close()


def test_a_twin_and_commits_set_ahead_lose_no_event_while_a_broker_is_down(
    cluster: KafkaCluster, env: dict[str, str], tmp_path: Path
) -> None:
    with WorkerProcess(env) as first:
        first.wait_ready(120)
        with deliveries(env, pause_s=0.1):
            until(lambda: read_topic(env, names_of(env).orders), within_s=60, what="folded orders")
            # If the coordinator is down, another broker must know which process has the name.
            down = cluster.brokers[asyncio.run(coordinator_of(env)) - 1]
            down.kill()
            with copy_of(env, tmp_path / "copy") as second:
                reason = first.reason_of_end(within_s=120)
                until(lambda: second.logged("ready"), within_s=120, what=f"ready\n{second.tail()}")
        assert reason.startswith("TakenNameError: another process has joined the group")
    deliver_held(env, range(20), ["payments", "orders"])
    for tp, at in positions(env).items():
        asyncio.run(commit(env, tp, at.end))
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        assert worker.logged("commit beyond what is folded")
        wait_folded(env, worker)
        code, output = run(env, "verify")
        assert code == 0, output
    cluster.start_again(down)
    cluster.await_in_sync()


def test_a_deleted_log_stays_deleted_on_brokers_that_create_topics_and_ends_the_worker(
    cluster: KafkaCluster, env: dict[str, str]
) -> None:
    log = names_of(env).webhooks
    with WorkerProcess(env) as worker, program("ingest", env) as ingress:
        worker.wait_ready(120)
        wait_ingress(ingress)
        deliver(env, *(paid(f"e{n}", f"p{n}", f"o{n}") for n in range(20)))
        wait_folded(env, worker)
        asyncio.run(delete(env, log))
        until(
            lambda: f"missing topics: {log}" in ask_ingress(env, "/readyz")[1],
            within_s=60,
            what="an ingress that names the missing topic",
        )
        reason = worker.reason_of_end(within_s=60)
        assert f"missing topics: {log}. " in reason
        assert "so these topics existed and are lost" in reason
        for command in ("status", "verify", "worker", "topics"):
            code, output = run(env, *command.split())
            assert (code, log in output) == (1, True), output
        assert ask_ingress(env, "/readyz")[0] == 503
    # Each broker receives the deletion separately.
    for broker in cluster.brokers:
        seen = asyncio.run(describe(env | {"LEDGER_KAFKA_BOOTSTRAP": broker.bootstrap}))
        assert log not in seen
