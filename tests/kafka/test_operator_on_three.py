"""On a cluster of three brokers, the mistakes of an operator lose no event.

Each broker has a replica of every topic. The mistakes are the same as in `test_names.py`,
`test_wrong_places.py`, `test_operator.py`, `test_compression.py`, `test_expiring_identities.py` and
`test_deleted_topics.py`. In this module, one broker is also down or has different settings, or all
brokers create missing topics by themselves, as Kafka does by default. `test_unclean.py` tests
unclean elections, after which tables are ahead of their changelogs.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import HEAP_MB, KafkaCluster
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.kafka.properties import Node
from cli.kafka.question import ask_metadata
from ledger.topics import all_topics
from runtime.kafka.identities import EXPIRATION
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.answers import deliver, paid
from tests.kafka.harness import (
    PARTITIONS,
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
from tests.kafka.topics import add_partitions, alter, delete, describe
from tests.kafka.verification import deliveries

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def cluster(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """Run three brokers that create missing topics by themselves, as Kafka does by default."""

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


@contextmanager
def down(cluster: KafkaCluster, number: int) -> Iterator[None]:
    """Kill a broker, and start it after the ``with`` block.

    The block begins when the other brokers have noticed that the broker is down.
    """
    broker = cluster.brokers[number]
    broker.kill()
    others = [int(each.bootstrap.rpartition(":")[2]) for each in cluster.brokers if each.pid]

    def noticed() -> bool:
        seen = [ask_metadata(port, []) for port in others]
        return all(each and len(each.brokers) == len(others) for each in seen)

    until(noticed, within_s=30, what="brokers that miss the killed one")
    yield
    cluster.start_again(broker)
    cluster.await_in_sync()


async def coordinator_of(env: dict[str, str]) -> int:
    """Return the number of the broker that coordinates the workers' group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"].split(","))
    await admin.start()
    try:
        return int(await admin.find_coordinator(group_of(env)))
    finally:
        await admin.close()


def test_a_copied_worker_and_advanced_commits_lose_no_event_while_a_broker_is_down(
    cluster: KafkaCluster, env: dict[str, str], tmp_path: Path
) -> None:
    with WorkerProcess(env) as first:
        first.wait_ready(120)
        with deliveries(env, pause_s=0.1):
            until(lambda: read_topic(env, names_of(env).orders), within_s=60, what="folded orders")
            # If the coordinator is down, another broker must know which process has the name.
            coordinator = cluster.brokers[asyncio.run(coordinator_of(env)) - 1]
            coordinator.kill()
            with copy_of(env, tmp_path / "copy") as second:
                reason = first.reason_of_end(within_s=120)
                until(lambda: second.logged("ready"), within_s=120, what=f"ready\n{second.tail()}")
        assert reason.startswith("TakenNameError: another process has joined the group")
    deliver_held(env, range(20), ["payments", "orders"])
    for tp, at in positions(env).items():
        asyncio.run(commit(env, tp, at.end))
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        assert worker.logged("commit beyond the folded records")
        wait_folded(env, worker)
        code, output = run(env, "verify")
        assert code == 0, output
    cluster.start_again(coordinator)
    cluster.await_in_sync()


def test_a_worker_folds_and_restores_records_of_every_codec_while_a_broker_is_down(
    cluster: KafkaCluster, env: dict[str, str], tmp_path: Path
) -> None:
    settings = TopicSettings.from_environment(env)
    asyncio.run(ensure_topics(settings))
    everything = [topic.name for topic in all_topics(settings.names, settings.group_id)]
    with WorkerProcess(env) as worker, down(cluster, 0):
        worker.wait_ready(120)
        for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
            asyncio.run(alter(env, *everything, compression_type=codec))
            some = range(20 * number, 20 * number + 20)
            deliver(env, *(paid(f"e{n}", f"p{n}", f"o{n}") for n in some))
            wait_folded(env, worker)
        worker.stop()
        shutil.rmtree(tmp_path / "ledger" / "tables")
        worker.start()
        worker.wait_ready(120)
        assert {worker.get(f"/orders/o{n}")[0] for n in range(80)} == {200}
        code, output = run(env, "verify")
        assert code == 0, output


def test_ingress_and_worker_refuse_a_log_with_added_partitions_while_a_broker_is_down(
    cluster: KafkaCluster, env: dict[str, str]
) -> None:
    log = names_of(env).webhooks
    said = f"topic {log} has 8 partitions, but this ledger has {PARTITIONS}"
    with WorkerProcess(env) as worker, program("ingest", env) as ingress, down(cluster, 2):
        worker.wait_ready(120)
        wait_ingress(ingress)
        deliver(env, *(paid(f"e{n}", f"p{n}", f"o{n}") for n in range(20)))
        wait_folded(env, worker)
        asyncio.run(add_partitions(env, log, 8))
        until(lambda: said in ask_ingress(env, "/readyz")[1], within_s=60, what=f"503: {said}")
        assert said in worker.reason_of_end(within_s=60)
        for command in ("status", "worker"):
            code, output = run(env, command)
            assert (code, said in output) == (1, True), (command, output)
    assert {record.partition for record in read_topic(env, log, 8)} <= set(range(PARTITIONS))


def test_if_one_broker_forgets_identities_too_early_the_worker_ends_and_does_not_start_again(
    cluster: KafkaCluster, env: dict[str, str]
) -> None:
    """Any broker may coordinate a worker's identities, so the expiration of each broker counts."""
    said = f"the brokers have {EXPIRATION}=2000, expected at least"
    broker = cluster.brokers[2]
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        broker._properties[EXPIRATION] = "2000"
        broker.restart()
        assert said in worker.reason_of_end(within_s=120)
        for command in ("worker", "doctor worker"):
            code, output = run(env, *command.split())
            assert (code, said in output) == (1, True), (command, output)
        del broker._properties[EXPIRATION]
        broker.restart()
        cluster.await_in_sync()
        worker.start()
        worker.wait_ready(120)


def test_a_log_is_not_imported_with_changed_times_while_a_broker_is_down(
    cluster: KafkaCluster, env: dict[str, str], tmp_path: Path
) -> None:
    """The import also stores the log's id in Kafka; the broker that was down receives it later."""
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    deliver(env, *(paid(f"e{n}", f"p{n}", f"o{n}") for n in range(20)))
    file = tmp_path / "log"
    code, output = run(env, "export-log", file)
    assert code == 0, output
    other = env | {"LEDGER_TOPIC_PREFIX": f"other-{env['LEDGER_TOPIC_PREFIX']}"}
    log = names_of(other).webhooks
    asyncio.run(ensure_topics(TopicSettings.from_environment(other)))
    asyncio.run(alter(other, log, message_timestamp_type="LogAppendTime"))
    with down(cluster, 1):
        code, output = run(other, "import-log", file)
        assert code == 1
        assert f"topic {log} has message.timestamp.type=LogAppendTime" in output
        assert read_topic(other, log) == []
        asyncio.run(alter(other, log, message_timestamp_type="CreateTime"))
        code, output = run(other, "import-log", file)
        assert code == 0, output
    imported, exported = (
        {(r.partition, r.offset, r.timestamp, r.key, r.value) for r in read_topic(ledger, topic)}
        for ledger, topic in ((other, log), (env, names_of(env).webhooks))
    )
    assert imported == exported


def test_a_deleted_log_ends_the_worker_and_stays_deleted_on_brokers_that_create_missing_topics(
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
    # Each broker learns of the deletion separately, so each broker is asked.
    for broker in cluster.brokers:
        seen = asyncio.run(describe(env | {"LEDGER_KAFKA_BOOTSTRAP": broker.bootstrap}))
        assert log not in seen
