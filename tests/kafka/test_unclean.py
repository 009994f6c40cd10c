"""After an unclean election, the new leader of a partition lacks acknowledged records.

An operator forces such an election to restore a partition whose other replicas are lost. New
records then follow the end of the elected replica, and get the offsets of the lost records.

Each topic has three replicas. Two of them must have a record before Kafka acknowledges the record.
A fourth broker is the only controller, so that two brokers may be down. Each test loses records
only of topics that have no replica on the fourth broker.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import HEAP_MB
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import HOST
from cli.kafka.properties import Node, new_cluster_id
from cli.kafka.question import Partition, ask_metadata
from ledger.topics import TABLES, TableName, Topic, changelog_name
from processors.engine.tables import CLAIM_KEY
from runtime.kafka.administration import administration
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.topic_states import read_begins
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.answers import SECRET, signed
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    deliver_held,
    environment,
    free_port,
    group_of,
    lags,
    names_of,
    orders,
    positions,
    producer,
    run,
    two_workers,
    until,
    wait_folded,
)
from tests.kafka.programs import AuditProcess, drift, program, wait_ingress

pytestmark = pytest.mark.timeout(300)

# These are the numbers of the brokers. The broker LAGS lacks records, the two brokers LEADS have
# these records, and the broker STAYS always runs.
LAGS, LEADS, STAYS = 1, (2, 3), 4
REPLICATION = {"replication_factor": 3, "min_insync_replicas": 2}
# These settings of the brokers must match Kafka's topics of commits and of identities, which the
# fixture `cluster` creates.
INTERNAL = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "min.insync.replicas": "2",
}
ELECT_LEADERS, VERSION, UNCLEAN = 43, 1, 1
# LAGS may lead these partitions of the topic of commits.
LOST_COMMITS = {0, 1}
# This is the time limit of the admin client for one request.
ASKED_FOR_A_LOST_LEADER_S = 15.0


class Brokers:
    """Four brokers of one cluster, and the operator's actions on them."""

    def __init__(self, brokers: list[EmbeddedKafka]) -> None:
        self._brokers = brokers
        self._lags, *self._leads, _ = brokers
        self.bootstrap = ",".join(broker.bootstrap for broker in brokers)

    def ledger(
        self, folder: Path, loses: str = "", *, loses_commits: bool = False, **settings: object
    ) -> dict[str, str]:
        """Create a ledger's topics, and return the ledger's settings.

        LAGS may lead a topic if the topic's name ends with one of the words in ``loses``.
        """
        settings = {**REPLICATION, "standby_replicas": 0, **settings}
        while True:
            env = environment(self.bootstrap, folder, **settings)
            if (commits_partition(group_of(env)) in LOST_COMMITS) == loses_commits:
                break
        asyncio.run(self._create(TopicSettings.from_environment(env), tuple(loses.split())))
        return env

    @staticmethod
    async def _create(settings: TopicSettings, loses: tuple[str, ...]) -> None:
        record = Topic(name=settings.names.made_with(PARTITIONS))
        new = []
        for topic in (record, *settings.topics):
            other = LAGS if loses and topic.name.endswith(loses) else STAYS
            replicas = {number: [*LEADS, other] for number in range(PARTITIONS)}
            config = topic.config(settings.min_insync_replicas)
            new.append(NewTopic(topic.name, -1, -1, replicas, config))
        await create_topics(settings.bootstrap_servers, new)
        await ensure_topics(settings)

    @contextlib.contextmanager
    def lagging(self) -> Iterator[None]:
        """Keep LAGS down during the ``with`` block, so that this broker misses records.

        After the ``with`` block, LEADS are down and LAGS runs. So the partitions that LAGS may lead
        have no leader.
        """
        self._lags.kill()
        yield
        for broker in self._leads:
            broker.kill()
        self._lags.start()
        until(self._leaderless, within_s=30, what="partitions without a leader")

    def elect(self) -> None:
        """Elect LAGS, as `kafka-leader-election --election-type unclean` does.

        The records that LAGS lacks are lost, because LEADS now follow LAGS. One of LEADS starts
        again, so that two brokers have each new record.
        """
        wanted = self._leaderless()
        body = struct.pack(">bi", UNCLEAN, len(wanted))
        for each in wanted:
            body += _string(each.topic) + struct.pack(">ii", 1, each.number)
        body += struct.pack(">i", 30_000)
        _ask(self._lags, struct.pack(">hhi", ELECT_LEADERS, VERSION, 0) + _string("test") + body)
        until(lambda: not self._leaderless(), within_s=30, what="leaders")
        self._leads[0].start()

    def complete(self) -> None:
        """Start the brokers that are down, and wait until all are in sync."""
        for broker in self._brokers:
            if broker.pid is None:
                broker.start()
        until(
            lambda: all(each.sees_in_sync(len(self._brokers)) for each in self._brokers),
            within_s=90,
            what="brokers in sync",
        )

    def _leaderless(self) -> list[Partition]:
        metadata = ask_metadata(_port(self._lags), None)
        assert metadata, "the broker LAGS does not answer"
        return [each for each in metadata.partitions if each.leader < 0]


async def create_topics(bootstrap: Iterable[str], new: list[NewTopic]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=list(bootstrap))
    await admin.start()
    try:
        answer = await admin.create_topics(new)
    finally:
        await admin.close()
    assert {code for _, code, *_ in answer.topic_errors} == {0}, answer


def commits_partition(group: str) -> int:
    """Return the partition of a group's commits; Kafka finds it by Java's hash of the name."""
    value = 0
    for character in group:
        value = (31 * value + ord(character)) % 2**32
    return abs(value - 2**32 if value >= 2**31 else value) % PARTITIONS


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _port(broker: EmbeddedKafka) -> int:
    return int(broker.bootstrap.rpartition(":")[2])


def _ask(broker: EmbeddedKafka, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", _port(broker)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            return answer.read(struct.unpack(">i", answer.read(4))[0])


def broker(cache: KafkaCache, folder: Path, cluster_id: str, controller: int) -> EmbeddedKafka:
    """Return a broker, whose number is the name of its folder; only STAYS is also a controller."""
    number, port = int(folder.name), free_port()
    no_controller = {"process.roles": "broker", "listeners": f"PLAINTEXT://{HOST}:{port}"}
    node = Node(
        number=number,
        controller_port=controller if number == STAYS else free_port(),
        properties={**INTERNAL, "controller.quorum.voters": f"{STAYS}@{HOST}:{controller}"},
        storage=("--cluster-id", cluster_id),
    )
    more = {} if number == STAYS else no_controller
    return EmbeddedKafka(
        folder, cache=cache, port=port, properties=more, heap_mb=HEAP_MB, node=node
    )


@pytest.fixture(scope="module")
def cluster(kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Start the brokers, and create the topics of commits and identities before Kafka does."""
    folder, cluster_id, controller = (
        tmp_path_factory.mktemp("cluster"),
        new_cluster_id(),
        free_port(),
    )
    made = [
        broker(kafka_cache, folder / str(number), cluster_id, controller)
        for number in (LAGS, *LEADS, STAYS)
    ]
    with contextlib.ExitStack() as stack:
        for each in reversed(made):
            stack.enter_context(each)
        started = Brokers(made)
        config = {"cleanup.policy": "compact", "min.insync.replicas": "2"}
        lost = {"__consumer_offsets": LOST_COMMITS, "__transaction_state": set()}
        internal = [
            NewTopic(
                name,
                -1,
                -1,
                {n: [*LEADS, LAGS if n in numbers else STAYS] for n in range(PARTITIONS)},
                config,
            )
            for name, numbers in lost.items()
        ]
        asyncio.run(create_topics(started.bootstrap.split(","), internal))
        yield started


@pytest.fixture
def brokers(cluster: Brokers) -> Iterator[Brokers]:
    """Yield brokers that are in sync; after the test, wait until all run and are in sync again."""
    yield cluster
    cluster.complete()


def verified(env: dict[str, str]) -> tuple[int, str]:
    return run(env | {"LEDGER_ALLOW_UNSIGNED": "true"}, "verify", "--wait", "30")


def assert_right(env: dict[str, str]) -> None:
    code, output = verified(env)
    assert code == 0, output


def wait_served(worker: WorkerProcess, numbers: Iterable[int]) -> None:
    """Wait until a worker knows all these orders; fail at once if the worker ends."""
    missing = set(numbers)

    def served() -> bool:
        assert worker.process
        assert worker.process.poll() is None, f"the worker died:\n{worker.tail()}"
        missing.difference_update([n for n in missing if worker.get(f"/orders/ord_{n}")[0] == 200])
        return not missing

    until(served, within_s=90, what=f"orders {sorted(missing)}")


def test_a_worker_ends_before_it_folds_more_records_if_its_source_was_cut_and_has_grown_again(
    brokers: Brokers, tmp_path: Path
) -> None:
    """The log has grown beyond the worker's offsets, so no offset shows the loss."""
    env = brokers.ledger(tmp_path, loses="plexy.webhooks")
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        deliver(env, orders(range(20)))
        wait_folded(env, worker)
        with brokers.lagging():
            deliver(env, orders(range(20, 60)))
            wait_folded(env, worker)
        worker.freeze()
        brokers.elect()
        deliver(env, orders(range(100, 200)))
        worker.go_on()
        reason = worker.reason_of_end(60)
    assert "plexy.webhooks[" in reason
    assert "no longer has the record that was folded at offset" in reason
    assert "`plexy-ledger rebuild`" in reason


def test_standby_tables_of_a_cut_changelog_are_restored_from_scratch_and_nothing_is_lost(
    brokers: Brokers, tmp_path: Path
) -> None:
    """The changelogs have grown beyond the standbys' offsets, so no offset shows the loss."""
    one = brokers.ledger(tmp_path / "one", loses="-changelog")
    one["LEDGER_STANDBY_REPLICAS"] = "1"
    with two_workers(one, tmp_path / "two") as both:
        deliver(one, orders(range(20)))
        wait_folded(one, *both)
        with brokers.lagging():
            deliver(one, orders(range(20, 60)))
            wait_folded(one, *both)
        for worker in both:
            worker.freeze()
        brokers.elect()
        write_claims(one, 100)
        for worker in both:
            worker.go_on()
        for worker in both:
            until(
                lambda worker=worker: worker.logged("table restored from scratch"),
                within_s=30,
                what="a standby that is restored",
            )
        deliver(one, orders(range(60, 100)))
        # If a worker's session has not expired, the worker ends, because its next write does not
        # continue the changelog that it knows. Otherwise, the worker has restored its tables.
        workers_go_on(one, *both)
        for worker in both:
            assert all("-changelog[" in line["reason"] for line in worker.logged("the worker ends"))
        for worker in both:
            worker.wait_ready(90)
            wait_served(worker, range(100))
        wait_folded(one, *both)
        assert_right(one)


def test_tables_that_are_ahead_of_cut_changelogs_are_restored_and_nothing_is_lost(
    brokers: Brokers, tmp_path: Path
) -> None:
    """The worker was stopped, so only its tables show that the changelogs were longer."""
    env = brokers.ledger(tmp_path, loses="-changelog")
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        deliver(env, orders(range(20)))
        wait_folded(env, worker)
        with brokers.lagging():
            deliver(env, orders(range(20, 60)))
            wait_folded(env, worker)
            worker.stop(30)
        brokers.elect()
        worker.start()
        worker.wait_ready(120)
        wait_served(worker, range(60))
        wait_folded(env, worker)
        assert worker.logged("table restored from scratch")
        assert_right(env)


def write_claims(env: dict[str, str], count: int) -> None:
    """Append ``count`` claims to each partition of each changelog.

    A worker writes a claim when it takes over a partition. A claim changes no row.
    """

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            for table in TABLES:
                topic = changelog_name(group_of(env), table)
                for partition in range(PARTITIONS):
                    await send_to_partition(
                        client, topic, partition, [OutRecord(CLAIM_KEY, None)] * count
                    )

    asyncio.run(send())


def test_published_records_that_are_lost_are_reported_by_a_running_audit_and_by_verify(
    brokers: Brokers, tmp_path: Path
) -> None:
    """The topics have grown beyond the audit's offsets, so no offset shows the loss."""
    env = brokers.ledger(tmp_path / "worker", loses="ledger.orders ledger.entries")
    env["LEDGER_ALLOW_UNSIGNED"] = "true"
    with WorkerProcess(env) as worker, AuditProcess(env, tmp_path / "audit") as audit:
        worker.wait_ready(120)
        deliver(env, orders(range(20)))
        wait_folded(env, worker)
        with brokers.lagging():
            deliver(env, orders(range(20, 60)))
            wait_folded(env, worker)
            audit.wait_rounds(within_s=60)
        audit.freeze()
        brokers.elect()
        deliver(env, orders(range(100, 200)))
        workers_go_on(env, worker)
        audit.go_on()
        lost = {'differences{kind="document_missing"}': 40, 'differences{kind="entry_missing"}': 40}
        until(lambda: drift(audit.metrics()) == lost, within_s=60, what=f"an audit that has {lost}")
        code, output = verified(env)
    assert code == 1
    for number in range(20, 60):
        assert f"document_missing  order ord_{number}:" in output
    assert sum(line.startswith("entry_missing  ") for line in output.splitlines()) == 40


def workers_go_on(env: dict[str, str], *workers: WorkerProcess) -> None:
    """Wait until everything is folded; restart a worker that ends."""

    def folded() -> bool:
        for worker in workers:
            assert worker.process
            if worker.process.poll() is not None:
                worker.start()
        return not any(lags(env).values())

    until(folded, within_s=120, what="lag zero")


def test_a_log_that_was_cut_while_no_worker_ran_is_reported_by_ingress_and_status(
    brokers: Brokers, tmp_path: Path
) -> None:
    env = brokers.ledger(
        tmp_path / "worker", loses="plexy.webhooks", webhook_secrets=SECRET, ingest_port=free_port()
    )
    with WorkerProcess(env) as worker, program("ingest", env) as ingress:
        worker.wait_ready(120)
        wait_ingress(ingress)
        with brokers.lagging():
            post(env, range(40))
            wait_folded(env, worker)
        worker.stop()
        assert_looked_past_lost_leaders(env)
        brokers.elect()
        wait_ingress(ingress)
        code, output = run(env, "status")
        post(env, range(100, 104))
        until(lambda: ingress.logged("acknowledged_records_lost"), within_s=30, what="a line")
        worker.start()
        reason = worker.reason_of_end(60)
    assert code == 1
    assert "records_lost  dedupe: plexy.webhooks partition" in output.replace(
        env["LEDGER_TOPIC_PREFIX"], ""
    )
    assert "plexy.webhooks[" in reason
    assert "`plexy-ledger rebuild`" in reason


def assert_looked_past_lost_leaders(env: dict[str, str]) -> None:
    """Check that a request for the topics' first offsets does not wait for missing leaders."""
    log, orders = names_of(env).webhooks, names_of(env).orders

    async def look() -> dict[str, dict[int, int]]:
        async with administration(TopicSettings.from_environment(env)) as admin:
            return await read_begins(admin, [log, orders])

    began_s = time.monotonic()
    begins = asyncio.run(look())
    assert time.monotonic() - began_s < ASKED_FOR_A_LOST_LEADER_S
    assert begins == {log: {}, orders: dict.fromkeys(range(PARTITIONS), 0)}


def post(env: dict[str, str], numbers: Iterable[int]) -> None:
    """Send deliveries to ingress; repeat each delivery until ingress acknowledges it."""
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/webhooks/plexy"
    with httpx.Client(trust_env=False, timeout=30) as client:
        for body in orders(numbers):
            record = signed(body)
            headers = {name: value.decode() for name, value in record.headers}
            until(
                lambda record=record, headers=headers: (
                    client.post(url, content=record.value, headers=headers).is_success
                ),
                within_s=60,
                what=f"an answer for {body['id']}",
            )


def test_the_worker_ends_if_outputs_are_lost_before_the_next_agent_has_folded_them(
    brokers: Brokers, tmp_path: Path
) -> None:
    """The next agent folded none of the lost records, so its position is still within the topic."""
    held: dict[str, list[TableName]] = {
        "ledger.events": ["payments", "orders"],
        "ledger.payments": ["orders"],
    }
    envs = {topic: brokers.ledger(tmp_path / topic, loses=topic) for topic in held}
    for env in envs.values():
        with WorkerProcess(env) as worker:
            worker.wait_ready(120)
            deliver(env, orders(range(20)))
            wait_folded(env, worker)
            worker.stop()
    with brokers.lagging():
        for topic, env in envs.items():
            deliver_held(env, range(20, 60), held[topic])
    brokers.elect()
    for topic, env in envs.items():
        with WorkerProcess(env) as worker:
            reason = worker.reason_of_end(60)
        assert reason.startswith(f"LostRecordsError: {env['LEDGER_TOPIC_PREFIX']}{topic}[")
        assert "but the workers have written up to " in reason
        assert "`plexy-ledger rebuild`" in reason


def test_lost_commits_are_recovered_from_the_tables(brokers: Brokers, tmp_path: Path) -> None:
    env = brokers.ledger(tmp_path, loses_commits=True)
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        deliver(env, orders(range(20)))
        wait_folded(env, worker)
        with brokers.lagging():
            deliver(env, orders(range(20, 60)))
            wait_folded(env, worker)
            worker.stop(30)
        brokers.elect()
        committed = sum(at.committed for at in positions(env).values())
        assert committed < 3 * 60
        worker.start()
        worker.wait_ready(120)
        wait_served(worker, range(60))
        wait_folded(env, worker)
        assert_right(env)
