"""Provides settings and processes to the tests that use a real broker.

Its functions also write to topics, read from topics, and wait for conditions. Each test has its own
topic prefix, consumer group and folders, so tests can share a broker.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.protocol.produce import ProduceRequest
from msgspec.structs import replace

from cli.kafka.process import free_port
from ledger.deduplication import PROGRESS_KEY
from ledger.digest import RESERVED
from ledger.notes import shown
from ledger.topics import TableName, TopicNames, changelog_name
from ledger.wire import ENTRIES, PAYMENTS, SEEN
from processors.engine.writers import Writer, next_epoch
from runtime.kafka.batches import OutRecord, send_by_key, send_to_partition
from runtime.kafka.partitions import partition_for
from runtime.kafka.sender import Sender
from runtime.kafka.topics import TopicSettings
from tests.kafka.forks import COMMAND, Fork, start

PARTITIONS = 4
WORKER = [*COMMAND, "worker"]
# This worker writes nothing while its folder contains a file `hold`. If the worker has something to
# write during this time, it creates a file `held`.
HOLDS_WORK = """
import asyncio, os, pathlib
from processors.engine.effects import Effects
from processors.settings import WorkerSettings
from processors.worker import run
folder = pathlib.Path(os.environ["LEDGER_DATA_DIR"])
write = Effects.write
async def held(effects):
    while (folder / "hold").exists():
        (folder / "held").touch()
        await asyncio.sleep(0.02)
    await write(effects)
Effects.write = held
run(WorkerSettings.from_environment(os.environ))
"""

# The variable HELD names tables. Each table belongs to one hop (a step of the fold), and for these
# hops the worker writes neither rows nor outputs.
HOLDS_A_TABLE = """
import asyncio, os
from processors.engine.effects import Effects
from processors.settings import WorkerSettings
from processors.worker import run
write = Effects.write
async def held(effects):
    if effects._table.name in os.environ["HELD"].split():
        await asyncio.Event().wait()
    await write(effects)
Effects.write = held
run(WorkerSettings.from_environment(os.environ))
"""


def environment(bootstrap: str, folder: Path, **more: object) -> dict[str, str]:
    """Return the settings of a fresh ledger on a shared broker."""
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = {
        "kafka_bootstrap": bootstrap,
        "topic_prefix": f"{name}.",
        "partitions": PARTITIONS,
        "data_dir": folder,
        "web_port": free_port(),
        "log_format": "json",
        **more,
    }
    return {f"LEDGER_{key.upper()}": str(value) for key, value in settings.items()}


def names_of(env: Mapping[str, str]) -> TopicNames:
    return TopicSettings.from_environment(env).names


def group_of(env: Mapping[str, str]) -> str:
    return TopicSettings.from_environment(env).group_id


def until(condition: Callable[[], Any], *, within_s: float, what: str | Callable[[], str]) -> Any:
    """Wait for a condition and return its value, or fail with ``what`` in the message.

    If ``what`` is a function, it is called when the wait fails, so the message shows the state at
    that time.
    """
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, (
            f"waited {within_s} s in vain for: {what() if callable(what) else what}"
        )
        time.sleep(0.05)
    return value


class WorkerProcess:
    """A worker that runs in its own process, and logs to a file in its data folder."""

    def __init__(self, env: Mapping[str, str], command: list[str] | None = None) -> None:
        self.env = dict(env)
        self.command = command or WORKER
        self.log_file = Path(env["LEDGER_DATA_DIR"]) / "worker.log"
        self.process: Fork | subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.process = start(self.command, self.env, self.log_file, self.log_file)

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Suspend the process; ``go_on`` resumes it."""
        assert self.process
        self.signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/status")
        until(lambda: "State:\tT" in status.read_text(), within_s=10, what="a frozen worker")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event in the worker's JSON log."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line["event"] == event]

    def wait(self, within_s: float) -> int:
        assert self.process
        return self.process.wait(within_s)

    def reason_of_end(self, within_s: float) -> str:
        """Wait until the worker has ended with an error; return the last reason that it logged."""
        code = self.wait(within_s)
        reasons = [line["reason"] for line in self.logged("the worker ends")]
        assert (code, bool(reasons)) == (1, True), self.tail()
        return str(reasons[-1])

    def stop(self, within_s: float = 15) -> None:
        """End the process with SIGTERM; fail if the process ends too late or with an error."""
        self.signal(signal.SIGTERM)
        assert self.wait(within_s) == 0, self.tail()

    def peak_mib(self) -> float:
        """Return the peak memory of the process."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Return a view's status and decoded JSON, or (0, None) if the worker does not listen."""
        url = f"http://127.0.0.1:{self.env['LEDGER_WEB_PORT']}{path}"
        try:
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def wait_ready(self, within_s: float = 60) -> None:
        def ready() -> bool:
            assert self.process
            assert self.process.poll() is None, f"the worker died:\n{self.tail()}"
            return self.get("/readyz")[0] == 200

        until(ready, within_s=within_s, what=f"readiness of {self.env['LEDGER_WEB_PORT']}")

    def wait_for(self, code: str, within_s: float = 60) -> dict[str, Any]:
        """Wait until `/readyz` answers 503 with this problem code; return the problem document."""

        def refused() -> dict[str, Any] | None:
            status, problem = self.get("/readyz")
            return problem if status == 503 and problem["code"] == code else None

        document: dict[str, Any] = until(
            refused, within_s=within_s, what=lambda: f"{code}\n{self.tail()}"
        )
        return document

    def tail(self) -> str:
        return self.log_file.read_text()[-3000:] if self.log_file.exists() else ""


def second_of(env: dict[str, str], folder: Path) -> dict[str, str]:
    """Return the settings of a second worker of a ledger, with its own data folder and port."""
    return env | {"LEDGER_DATA_DIR": str(folder), "LEDGER_WEB_PORT": str(free_port())}


def moved(env: dict[str, str], folder: Path) -> dict[str, str]:
    """Return a stopped worker's settings with a new data folder, which has only the worker's id.

    A worker that starts with these settings has the stopped worker's name, so it rejoins the group
    at once. A worker with a new name would have to wait until the stopped worker's session has
    ended.
    """
    folder.mkdir()
    shutil.copy(Path(env["LEDGER_DATA_DIR"]) / "worker-id", folder)
    return env | {"LEDGER_DATA_DIR": str(folder)}


def copy_of(env: dict[str, str], folder: Path) -> WorkerProcess:
    """Return a worker that has the same id as another worker, and advertises the same address.

    The new worker listens on a different address of this machine, as if it ran on a second machine.
    """
    return WorkerProcess(moved(env, folder) | {"LEDGER_WEB_BIND": "127.0.0.2"})


@contextlib.contextmanager
def two_workers(
    one: dict[str, str], folder: Path
) -> Iterator[tuple["WorkerProcess", "WorkerProcess"]]:
    """Run two workers of one ledger; ``folder`` is the second worker's data folder."""
    with WorkerProcess(one) as first, WorkerProcess(second_of(one, folder)) as second:
        first.wait_ready(90)
        second.wait_ready(90)
        yield first, second


@contextlib.contextmanager
def worker_that_folded(
    env: dict[str, str], bodies: Iterable[Mapping[str, Any]]
) -> Iterator[WorkerProcess]:
    """Run a worker, deliver these bodies, and wait until the worker has folded them."""
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, bodies)
        wait_folded(env, worker)
        yield worker


@asynccontextmanager
async def producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=256 * 1024
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def writer(bootstrap: str, identity: str) -> AsyncIterator[Writer]:
    """Open a writer for an identity; opening the writer raises the identity's epoch."""
    async with producer(bootstrap) as client:
        sender = Sender(client.client)
        opened = Writer(sender, await next_epoch(client.client, identity))
        try:
            yield opened
        finally:
            opened.close()
            await sender.close()


def event(number: int, kind: str = "payment.succeeded", **data: Any) -> dict[str, Any]:
    """Return an event as Plexy sends it; by default, it is about the payment ``pay_<number>``."""
    content = {"id": f"pay_{number}", "amount": 500 + number, "currency": "KZT", **data}
    return {"id": f"evt_{number}", "type": kind, "created": 1_767_225_600 + number, "data": content}


def orders(numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Return one event for each number: a payment of the order with this number."""
    return [event(n, order=f"ord_{n}") for n in numbers]


def write(env: Mapping[str, str], topic: str, records: Iterable[OutRecord]) -> None:
    """Write each record to the partition of its key; the ledger's own checks are not made."""

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            for record in records:
                partition = partition_for(record.key, PARTITIONS)
                await send_to_partition(client, topic, partition, [record])

    asyncio.run(send())


def produce_batch(env: Mapping[str, str], topic: str, partition: int, data: bytes) -> None:
    """Write a batch of records byte for byte, as a producer of another project could."""

    async def send() -> None:
        client = AIOKafkaClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
        await client.bootstrap()
        try:
            await client._wait_on_metadata(topic)
            leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
            request = ProduceRequest(
                transactional_id=None,
                required_acks=-1,
                timeout=30_000,
                topics=[(topic, [(partition, data)])],
            )
            answer = await client.send(leader, request)
        finally:
            await client.close()
        ((_, ((_, error, *_),)),) = answer.topics
        assert error == 0, f"the broker refused the batch with error {error}"

    asyncio.run(send())


def deliver(env: Mapping[str, str], bodies: Iterable[Mapping[str, Any]]) -> None:
    """Append bodies to the log of record, each under its event id as the key.

    Unlike the records that ingress writes, these records have no headers.
    """

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            records = [
                OutRecord(str(body["id"]).encode(), json.dumps(body).encode()) for body in bodies
            ]
            await send_by_key(client, names_of(env).webhooks, records, PARTITIONS)

    asyncio.run(send())


async def commit(env: Mapping[str, str], partition: TopicPartition, offset: int) -> None:
    """Commit an offset for the workers' group, as if the workers had folded that far.

    Kafka refuses the commit while the session of a stopped worker lasts, so this function retries.
    """
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(CommitFailedError):
                return await _commit(env, partition, offset)
            await asyncio.sleep(0.2)


async def _commit(env: Mapping[str, str], partition: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"],
        group_id=group_of(env),
        enable_auto_commit=False,
    )
    async with consumer:
        consumer.assign([partition])
        await consumer.commit({partition: offset})


def deliver_held(env: Mapping[str, str], numbers: Iterable[int], held: list[TableName]) -> None:
    """Deliver orders to a worker that never writes the ``held`` tables.

    Return when the topic that feeds the first of these tables has a new record for each order.
    """
    source = names_of(env).source_of(held[0])

    def end() -> int:
        return sum(at.end for tp, at in positions(env).items() if tp.topic == source)

    wanted = end() + len(orders(numbers))
    program = [sys.executable, "-c", HOLDS_A_TABLE]
    with WorkerProcess({**env, "HELD": " ".join(held)}, program) as worker:
        worker.wait_ready()
        deliver(env, orders(numbers))
        until(lambda: end() >= wanted, within_s=60, what=f"{wanted} records in {source}")


class Position(NamedTuple):
    """The committed offset and the end offset of one partition."""

    committed: int
    end: int


def positions(env: Mapping[str, str]) -> dict[TopicPartition, Position]:
    """Return the position of each partition of the three topics that the workers fold."""
    return asyncio.run(_positions(env))


async def _positions(env: Mapping[str, str]) -> dict[TopicPartition, Position]:
    names, bootstrap = names_of(env), env["LEDGER_KAFKA_BOOTSTRAP"]
    topics = (names.webhooks, names.events, names.payments)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    try:
        committed = await _committed(admin, group_of(env))
        partitions = [TopicPartition(t, p) for t in topics for p in range(PARTITIONS)]
        ends = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
        await admin.close()
    return {
        tp: Position(max(committed[tp].offset, 0) if tp in committed else 0, ends[tp])
        for tp in partitions
    }


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, Any]:
    """Return a group's committed offsets; retry while the group's coordinator is starting."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await admin.list_consumer_group_offsets(group)
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(0.1)


def lags(env: Mapping[str, str], partitions: Iterable[int] = range(PARTITIONS)) -> dict[str, int]:
    """Return, for each topic, the number of records that the workers have not committed yet."""
    wanted = set(partitions)
    lag: dict[str, int] = {}
    for tp, position in positions(env).items():
        here = position.end - position.committed if tp.partition in wanted else 0
        lag[tp.topic] = lag.get(tp.topic, 0) + here
    return lag


def wait_folded(env: Mapping[str, str], *workers: WorkerProcess, within_s: float = 60) -> None:
    """Wait until the workers have committed all records; fail at once if a worker has died."""

    def folded() -> bool:
        for worker in workers:
            assert worker.process
            assert worker.process.poll() is None, f"the worker died:\n{worker.tail()}"
        return not any(lags(env).values())

    until(folded, within_s=within_s, what=lambda: f"a lag of zero, got {lags(env)}")


def read_topic(env: Mapping[str, str], topic: str, partitions: int = PARTITIONS) -> list[Any]:
    """Return every record of a topic; the records of one partition are in order of offset."""

    async def read() -> list[Any]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"], auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            read = [TopicPartition(topic, p) for p in range(partitions)]
            ends = await consumer.end_offsets(read)
            consumer.assign(read)
            records: list[Any] = []
            for tp in read:
                consumer.seek(tp, 0)
            while any([await consumer.position(tp) < ends[tp] for tp in read]):
                for fetched in (await consumer.getmany(timeout_ms=500)).values():
                    records.extend(fetched)
            return records
        finally:
            await consumer.stop()

    return asyncio.run(read())


def committed_records(env: Mapping[str, str], topic: str) -> list[Any]:
    """Return the records of a topic that are below the offsets which the workers have committed."""
    committed = positions(env)
    return [
        record
        for record in read_topic(env, topic)
        if record.offset < committed[TopicPartition(topic, record.partition)].committed
    ]


def run(env: Mapping[str, str], *arguments: object) -> tuple[int, str]:
    """Run a command to its end; return its exit code and its whole output."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        code = start([*COMMAND, *map(str, arguments)], env, out, err).wait(180)
        said = err.read_text()
        assert "Traceback" not in said, said
        return code, out.read_text() + said


def latest(env: Mapping[str, str], topic: str) -> dict[bytes, bytes]:
    """Return the last value of each key of a topic; leave out deleted keys and reserved keys."""
    records = [r for r in read_topic(env, topic) if not r.key.startswith(RESERVED)]
    values: dict[bytes, bytes | None] = {r.key: r.value for r in records}
    return {key: value for key, value in values.items() if value is not None}


def state_of(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of the state that does not depend on how the partitions were interleaved."""
    names, group = names_of(env), group_of(env)
    payments = latest(env, changelog_name(group, "payments"))
    held = {key: PAYMENTS.decode(value) for key, value in payments.items()}
    stored = latest(env, changelog_name(group, "seen"))
    # Under this key, each partition stores how far it is folded. A duplicate changes this value.
    stored.pop(PROGRESS_KEY, None)
    # A duplicate adds its offset to the row of its event id, and changes nothing else.
    seen = {key: replace(SEEN.decode(value), repeats=()) for key, value in stored.items()}
    sums: Counter[tuple[str, str]] = Counter()
    for value in latest(env, names.entries).values():
        for posting in ENTRIES.decode(value).postings:
            sums[posting.account, posting.currency] += posting.amount
    return {
        "seen": seen,
        # A note describes a delivery that does not count. When a retry makes this delivery count,
        # the note stays stored, but changes nothing any more.
        "facts": {key: each.facts for key, each in held.items() if each.facts},
        "notes": {key: shown(each.notes) for key, each in held.items() if shown(each.notes)},
        "documents": latest(env, names.orders),
        "balances": sums,
    }
