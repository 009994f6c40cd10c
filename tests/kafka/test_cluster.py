"""If one of three brokers is killed and loses its disk, no acknowledged delivery is lost.

The brokers, the ingress and the worker are real processes. The deliveries come from a simulation of
Plexy. The simulation keeps its own sums, and these sums give the expected orders.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NotCoordinatorForGroupError

from cli.kafka.cluster import KafkaCluster, plain_broker
from cli.kafka.distribution import KafkaCache
from cli.run.local import running
from cli.run.programs import Command
from cli.simulate.check import Check
from cli.simulate.delivery import SenderOptions
from cli.simulate.simulation import Simulation
from faults.watch import Watch
from ledger.topics import all_topics
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.fakes import until
from tests.ingest.conftest import PATH, event, signed
from tests.kafka import harness

pytestmark = pytest.mark.timeout(420)

SECRET = "whsec_of_the_cluster"
RATE_PER_S = 40.0
# The ledger promises these times. A delivery that Kafka has not acknowledged in time gets a 503.
GOES_ON_WITHIN_S = 10.0
ANSWERED_WITHIN_S = 10.0
# On a machine with two cores, which also runs the brokers of two other test files, an answer may
# take this much longer.
SCHEDULING_S = 3.0


@pytest.fixture(scope="module")
def cluster(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with KafkaCluster(folder, plain_broker(kafka_cache)) as started:
        yield started


class Ledger:
    """An ingress and a worker on the cluster; each ledger has its own topics."""

    def __init__(self, cluster: KafkaCluster, folder: Path, min_insync_replicas: int) -> None:
        env = harness.environment(
            cluster.bootstrap,
            folder,
            replication_factor=3,
            min_insync_replicas=min_insync_replicas,
            webhook_secrets=SECRET,
            ingest_port=harness.free_port(),
            standby_replicas=0,
        )
        kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
        self.env = kept | env
        self.settings = TopicSettings.from_environment(self.env)
        self.ingest_url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
        self.views_url = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
        self.ingest = Command("ingest", self.env, self._show(folder / "ingest.log"))
        self.worker = Command("worker", self.env, self._show(folder / "worker.log"))

    @staticmethod
    def _show(file: Path):
        def show(line: str) -> None:
            with file.open("a") as log:
                log.write(f"{line}\n")

        return show

    @contextmanager
    def running(self) -> Iterator[None]:
        asyncio.run(ensure_topics(self.settings))
        probes = [
            (self.ingest, f"{self.ingest_url}/readyz"),
            (self.worker, f"{self.views_url}/readyz"),
        ]
        with running(probes):
            yield

    def check_alive(self) -> None:
        """Fail if a program has ended, because no program should end in these tests."""
        self.ingest.check_alive()
        self.worker.check_alive()

    def simulation(self, seed: int) -> Simulation:
        options = SenderOptions(
            url=self.ingest_url + PATH,
            secrets=(SECRET,),
            rate_per_s=RATE_PER_S,
            time_scale=0.05,
            # With so many concurrent deliveries, none waits for an earlier delivery, and the rate
            # stays steady.
            concurrency=2000,
        )
        return Simulation(seed, 1_000_000, options)

    async def lost(self, simulation: Simulation) -> list[str]:
        """Return the ids of acknowledged deliveries whose exact bytes the log does not contain."""
        topic = self.settings.names.webhooks
        records = await asyncio.to_thread(harness.read_topic, self.env, topic)
        logged = Counter((record.key.decode(), record.value) for record in records)
        sent = Counter(
            (key, body) for key, bodies in simulation.acknowledged.items() for body in bodies
        )
        return [key for key, _ in sent - logged]


@pytest.fixture(scope="module")
def ledger(cluster: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Run the ledger that most tests share; each test leaves all brokers in sync."""
    started = Ledger(cluster, tmp_path_factory.mktemp("ledger"), min_insync_replicas=2)
    with started.running():
        yield started


class Silence:
    """Measures the longest time in which no delivery got a 200, while deliveries never paused."""

    def __init__(self, simulation: Simulation) -> None:
        self.longest_s = 0.0
        self._simulation = simulation

    async def listen(self) -> None:
        last, last_s = self._simulation.tally.acknowledged, time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            self.longest_s = max(self.longest_s, time.monotonic() - last_s)
            if (now := self._simulation.tally.acknowledged) != last:
                last, last_s = now, time.monotonic()


@asynccontextmanager
async def delivering(ledger: Ledger, seed: int) -> AsyncIterator[tuple[Simulation, Silence]]:
    """Deliver at a steady rate during the ``with`` block; then wait for all acknowledgements."""
    simulation = ledger.simulation(seed)
    silence = Silence(simulation)
    sending = asyncio.create_task(simulation.run())
    try:
        await until(lambda: len(simulation.acknowledged) > RATE_PER_S)
        listening = asyncio.create_task(silence.listen())
        yield simulation, silence
        listening.cancel()
        simulation.finish()
        async with asyncio.timeout(60):
            await sending
    finally:
        sending.cancel()


async def coordinator_of(ledger: Ledger, cluster: KafkaCluster) -> int:
    """Return the index, in `cluster.brokers`, of the broker that coordinates the workers' group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    await admin.start()
    try:
        return int(await admin.find_coordinator(ledger.settings.group_id)) - 1
    finally:
        await admin.close()


@pytest.fixture
async def watch(ledger: Ledger) -> AsyncIterator[Watch]:
    watching = Watch(ledger.settings)
    yield watching
    await watching.close()


async def folds(ledger: Ledger, watch: Watch, within_s: float) -> None:
    """Wait until the worker has folded, in each partition, a record that arrived after the call."""
    took_s = await watch.folded_past(await watch.ends(), within_s)
    ledger.check_alive()
    assert took_s is not None, f"nothing was folded for {within_s} s"


async def test_every_topic_has_three_replicas_and_requires_two_of_them_to_be_in_sync(
    ledger, cluster
):
    names = {topic.name for topic in all_topics(ledger.settings.names, ledger.settings.group_id)}
    names.add("__consumer_offsets")
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    await admin.start()
    try:
        described = await admin.describe_topics(sorted(names))
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
        answers = await admin.describe_configs(resources)
    finally:
        await admin.close()
    replicas = {
        (topic["topic"], len(partition["replicas"]))
        for topic in described
        for partition in topic["partitions"]
    }
    assert replicas == {(name, 3) for name in names}
    least, unclean = {}, {}
    for answer in answers:
        for _error, _message, _kind, name, entries in answer.resources:
            values = {key: value for key, value, *_ in entries}
            least[name] = values["min.insync.replicas"]
            unclean[name] = values["unclean.leader.election.enable"]
    assert least == dict.fromkeys(names, "2")
    assert unclean == dict.fromkeys(names, "false")


async def test_a_broker_that_is_not_the_coordinator_answers_a_request_for_offsets_with_an_error(
    ledger, cluster
):
    """A client may ask a former coordinator, but must not conclude that nothing is committed."""
    partition, group = TopicPartition(ledger.settings.names.webhooks, 0), "some-reader"
    options = ledger.settings.client_options()
    reader = AIOKafkaConsumer(**options, group_id=group, enable_auto_commit=False)
    admin = AIOKafkaAdminClient(**options)
    await reader.start()
    await admin.start()
    try:
        reader.assign([partition])
        await reader.commit({partition: 7})
        coordinator = await admin.find_coordinator(group)
        wrong = coordinator % len(cluster.brokers) + 1
        with pytest.raises(NotCoordinatorForGroupError):
            await admin.list_consumer_group_offsets(group, wrong)
        reader._coordinator.coordinator_id = wrong
        assert await reader.committed(partition) == 7
        assert reader._coordinator.coordinator_id == coordinator
    finally:
        await reader.stop()
        await admin.close()


async def test_each_broker_in_turn_is_killed_and_loses_its_disk_but_nothing_else_is_lost(
    ledger, cluster, watch, record_property
):
    left = list(range(3))
    async with delivering(ledger, seed=41) as (simulation, silence):
        while left:
            coordinator = await coordinator_of(ledger, cluster)
            broker = cluster.brokers[
                left.pop(left.index(coordinator) if coordinator in left else 0)
            ]
            lost_disk = broker.directory_id
            broker.kill()
            # While the broker is down, the worker continues to fold, and it does not restart.
            await folds(ledger, watch, 60)
            broker.erase()
            await asyncio.to_thread(cluster.start_again, broker)
            await asyncio.to_thread(cluster.await_in_sync)
            assert broker.directory_id not in (None, lost_disk)
            await folds(ledger, watch, 30)
    # The file that pytest writes with `--junitxml` contains this number.
    record_property("longest_silence_s", silence.longest_s)
    assert silence.longest_s < GOES_ON_WITHIN_S, simulation.tally
    assert simulation.owed == {}
    await asyncio.to_thread(harness.wait_folded, ledger.env)
    assert await ledger.lost(simulation) == []
    assert await Check(simulation.orders(), 16).run((ledger.views_url,), None, 60) == []
    code, output = await asyncio.to_thread(harness.run, ledger.env, "verify")
    assert code == 0, output
    ledger.check_alive()


async def post(ledger: Ledger, client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    """Deliver once; check that the answer arrives in time, whether Kafka is available or not."""
    began_s = time.monotonic()
    answer = await client.post(
        ledger.ingest_url + PATH, content=body, headers=signed(body, secret=SECRET)
    )
    assert time.monotonic() - began_s < ANSWERED_WITHIN_S + SCHEDULING_S
    return answer


async def refusals(ledger: Ledger, name: str, count: int) -> list[httpx.Response]:
    """Start a delivery every 0.1 s without waiting for earlier answers; return all answers."""

    async def one(client: httpx.AsyncClient, number: int) -> httpx.Response:
        await asyncio.sleep(number * 0.1)
        return await post(ledger, client, event(f"evt_{name}_{number}"))

    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await asyncio.gather(*(one(client, number) for number in range(count)))


def assert_refused(answers: list[httpx.Response]) -> None:
    """Check that each answer is the documented 503, with its problem document."""
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert {answer.json()["code"] for answer in answers} == {"log_unavailable"}
    assert all("retry-after" in answer.headers for answer in answers)


async def test_ingress_answers_503_after_two_brokers_were_killed_until_one_of_them_is_back(
    ledger, cluster, watch
):
    first, second, last = cluster.brokers
    async with delivering(ledger, seed=42) as (simulation, _):
        first.kill()
        # The first broker lacks all records that are acknowledged from now on.
        await folds(ledger, watch, 60)
        second.kill()
        # Wait for the last answers to deliveries that Kafka acknowledged before the kill.
        await asyncio.sleep(1)
        before = simulation.tally.acknowledged
        assert_refused(await refusals(ledger, "two_down", 30))
        assert simulation.tally.acknowledged == before
        await asyncio.to_thread(cluster.start_again, first)
        await until(lambda: simulation.tally.acknowledged > before + RATE_PER_S, within_s=30)
        await folds(ledger, watch, 60)
        await asyncio.to_thread(cluster.start_again, second)
        await asyncio.to_thread(cluster.await_in_sync)
    assert last.pid is not None
    await asyncio.to_thread(harness.wait_folded, ledger.env)
    assert await ledger.lost(simulation) == []
    assert await Check(simulation.orders(), 16).run((ledger.views_url,), None, 60) == []
    ledger.check_alive()


@pytest.fixture
def strict(cluster: KafkaCluster, tmp_path: Path) -> Iterator[Ledger]:
    """Run a ledger that acknowledges a record only when all three brokers have it."""
    started = Ledger(cluster, tmp_path, min_insync_replicas=3)
    with started.running():
        yield started


async def test_ingress_answers_503_while_fewer_replicas_are_in_sync_than_required(strict, cluster):
    """The leader refuses writes.

    It would do the same in a cluster that has lost two brokers, if these brokers are not
    controllers.
    """
    watch = Watch(strict.settings)
    async with delivering(strict, seed=43) as (simulation, _):
        await folds(strict, watch, 30)
        cluster.brokers[2].kill()
        await asyncio.sleep(1)
        before = simulation.tally.acknowledged
        assert_refused(await refusals(strict, "too_few", 30))
        assert simulation.tally.acknowledged == before
        await asyncio.to_thread(cluster.start_again, cluster.brokers[2])
        await asyncio.to_thread(cluster.await_in_sync)
        await until(lambda: simulation.tally.acknowledged > before + RATE_PER_S, within_s=30)
        await folds(strict, watch, 60)
    await watch.close()
    assert await strict.lost(simulation) == []
    strict.check_alive()
