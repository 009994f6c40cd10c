"""Ingress, as a process in front of a real broker, keeps every delivery that it acknowledges."""

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from aiokafka.producer.message_accumulator import MessageBatch

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ingest.log import LogUnavailableError, WebhookLog
from ingest.records import NewRecord
from ingest.settings import IngestSettings
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.fakes import until
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import environment, names_of, read_topic
from tests.kafka.topics import alter

PROJECT = Path(__file__).parents[2]
SERVE = (
    "import os; from ingest.server import serve; from ingest.settings import IngestSettings; "
    "serve(IngestSettings.from_environment(os.environ))"
)
# A limit below the default of ten seconds keeps the tests of outages short.
ANSWER_WITHIN_S = 4.0
# On a machine with two cores that also starts a broker, an answer may take this much longer.
SCHEDULING_S = 0.5


class Ingress:
    """`ingest.server` in a process of its own, and a client for it."""

    def __init__(self, env: Mapping[str, str], process: subprocess.Popen, log_file: Path) -> None:
        self.env = env
        self.answer_within_s = IngestSettings.from_environment(env).answer_within_s
        self.process = process
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}",
            trust_env=False,
            timeout=30,
            limits=httpx.Limits(max_connections=32),
        )
        self._log_file = log_file

    async def deliver(self, body: bytes) -> httpx.Response:
        began = time.monotonic()
        answer = await self.client.post(PATH, content=body, headers=signed(body))
        assert time.monotonic() - began < self.answer_within_s + SCHEDULING_S
        return answer

    async def status(self, path: str) -> int:
        try:
            return (await self.client.get(path)).status_code
        except httpx.TransportError:
            return 0

    async def wait_status(self, path: str, status: int, within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while (got := await self.status(path)) != status:
            assert self.process.poll() is None, self._log_file.read_text()
            assert time.monotonic() < deadline, f"{path} is {got}:\n{self._log_file.read_text()}"
            await asyncio.sleep(0.05)

    async def deliver_until_accepted(self, body: bytes, within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while (answer := await self.deliver(body)).status_code != 200:
            assert answer.json()["code"] == "log_unavailable"
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    def lines(self) -> list[dict]:
        """Return ingress's own log lines, except the lines about single deliveries."""
        lines = [json.loads(line) for line in self._log_file.read_text().splitlines()]
        return [line for line in lines if line["event"] != "delivery" and "logger" not in line]

    async def log_of_record(self, topic: str | None = None) -> list:
        return await asyncio.to_thread(read_topic, self.env, topic or names_of(self.env).webhooks)


@contextlib.asynccontextmanager
async def ingress(
    bootstrap: str,
    folder: Path,
    *,
    create_topics: bool = True,
    own_pace: bool = False,
) -> AsyncIterator:
    """Run ingress on its own topics; with ``own_pace``, answers have the default time limit."""
    pace = {} if own_pace else {"answer_within_s": ANSWER_WITHIN_S}
    env = environment(bootstrap, folder, webhook_secrets=SECRET, ingest_port=free_port(), **pace)
    if create_topics:
        await ensure_topics(TopicSettings.from_environment(env))
    log_file = folder / "ingress.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - done in a moment
            [sys.executable, "-c", SERVE], cwd=PROJECT, env=os.environ | env, stderr=log
        )
    started = Ingress(env, process, log_file)
    try:
        await started.wait_status("/healthz", 200)
        yield started
    finally:
        await started.client.aclose()
        process.kill()
        await asyncio.to_thread(process.wait)


@pytest.fixture
async def running(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[Ingress]:
    """Run ingress on the broker that the tests share."""
    async with ingress(kafka.bootstrap, tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def _own_kafka(kafka_cache, tmp_path_factory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), cache=kafka_cache) as broker:
        yield broker


@pytest.fixture
def own_kafka(_own_kafka: EmbeddedKafka) -> Iterator[EmbeddedKafka]:
    """Yield a broker that only the tests of this module use, so these tests may stop it."""
    yield _own_kafka
    _own_kafka.resume()
    if _own_kafka.pid is None:
        _own_kafka.start()


class Load:
    """Sends deliveries without a pause, and stores the answer to each delivery."""

    def __init__(self, started: Ingress, senders: int = 8) -> None:
        self.answers: dict[bytes, int] = {}
        self._started = started
        self._stopping = False
        self._tasks = [asyncio.create_task(self._send(n)) for n in range(senders)]

    async def _send(self, sender: int) -> None:
        number = 0
        with contextlib.suppress(httpx.TransportError):
            while not self._stopping:
                number += 1
                body = event(f"evt_{sender}_{number}")
                self.answers[body] = (await self._started.deliver(body)).status_code
                if self.answers[body] != 200:
                    await asyncio.sleep(0.05)

    @property
    def accepted(self) -> list[bytes]:
        return [body for body, status in self.answers.items() if status == 200]

    async def stop(self) -> None:
        """Stop sending, and wait for the last answers."""
        self._stopping = True
        await self.ended()

    async def ended(self) -> None:
        """Wait until every sender has ended, for example because ingress no longer listens."""
        await asyncio.gather(*self._tasks)

    async def assert_kept(self) -> None:
        """Check that the log has each accepted body exactly once, and no body that was not sent."""
        kept = Counter(record.value for record in await self._started.log_of_record())
        assert [body for body in self.accepted if kept[body] != 1] == []
        assert [json.loads(body)["id"] for body in kept if body not in self.answers] == []


async def test_an_acknowledged_delivery_is_in_the_log_byte_for_byte(running):
    await running.wait_status("/readyz", 200)
    body = b' {"id":"evt_\\u00fc","type":"t" ,"created":1,"data":{"b":1.50,"a":1}}\n'
    answer = await running.deliver(body)
    assert (answer.status_code, answer.content) == (200, b'{"received": true}')
    [record] = await running.log_of_record()
    assert answer.headers["Ledger-Position"] == f"{record.partition}:{record.offset}"
    assert (record.key, record.value) == ("evt_ü".encode(), body)
    assert [name for name, _ in record.headers] == [
        "plexy-signature",
        "received-at-ms",
        "content-type",
    ]
    headers = dict(record.headers)
    assert headers["plexy-signature"].decode() == answer.request.headers["plexy-signature"]
    assert int(headers["received-at-ms"]) == record.timestamp
    assert abs(time.time() - record.timestamp / 1000) < 60


async def test_the_largest_body_is_kept(running):
    filling = b"x" * (2**20 - len(event(padding="")))
    body = event(padding="").replace(b'"padding": "', b'"padding": "' + filling)
    assert len(body) == 2**20
    assert (await running.deliver(body)).status_code == 200
    [record] = await running.log_of_record()
    assert record.value == body


async def test_deliveries_of_one_event_are_in_one_partition_in_order(running):
    bodies = [event("evt_same", n=n) for n in range(20)]
    for body in bodies:
        assert (await running.deliver(body)).status_code == 200
    records = await running.log_of_record()
    assert [record.value for record in records] == bodies


async def test_an_invalid_envelope_is_kept_in_plexy_rejected_before_ingress_answers_400(running):
    body = event("evt_bad", type=7)
    assert (await running.deliver(body)).status_code == 400
    [record] = await running.log_of_record(names_of(running.env).rejected)
    headers = dict(record.headers)
    assert (record.key, record.value) == (b"evt_bad", body)
    assert (headers["reason"], headers["source-topic"]) == (b"invalid_envelope", b"http")
    assert await running.log_of_record() == []


async def test_deliveries_get_503_on_time_while_a_broker_is_stopped(own_kafka, tmp_path):
    async with ingress(own_kafka.bootstrap, tmp_path) as started:
        await started.wait_status("/readyz", 200)
        load = Load(started)
        await until(lambda: len(load.accepted) > 50)
        await asyncio.to_thread(own_kafka.stop)
        await until(lambda: 503 in load.answers.values())
        await started.wait_status("/readyz", 503)
        assert await started.status("/healthz") == 200
        before = len(load.accepted)
        await asyncio.to_thread(own_kafka.start)
        await until(lambda: len(load.accepted) > before + 50)
        await started.wait_status("/readyz", 200)
        await load.stop()
        await load.assert_kept()
        assert_no_spam(started)


async def test_a_killed_broker_loses_nothing_that_was_acknowledged(own_kafka, tmp_path):
    async with ingress(own_kafka.bootstrap, tmp_path) as started:
        load = Load(started)
        await until(lambda: len(load.accepted) > 50)
        await asyncio.to_thread(own_kafka.kill)
        before = len(load.accepted)
        await asyncio.to_thread(own_kafka.start)
        await until(lambda: len(load.accepted) > before + 50)
        await load.stop()
        await load.assert_kept()


async def test_deliveries_get_503_on_time_while_a_broker_is_frozen(own_kafka, tmp_path):
    async with ingress(own_kafka.bootstrap, tmp_path) as started:
        load = Load(started)
        await until(lambda: len(load.accepted) > 50)
        own_kafka.pause()
        await until(lambda: 503 in load.answers.values())
        await started.wait_status("/readyz", 503)
        before = len(load.accepted)
        own_kafka.resume()
        await until(lambda: len(load.accepted) > before + 50)
        await started.wait_status("/readyz", 200)
        await load.stop()
        await load.assert_kept()
        assert_no_spam(started)


async def test_by_default_a_delivery_gets_503_within_ten_seconds_of_its_arrival(
    own_kafka, tmp_path, monkeypatch
):
    monkeypatch.delenv("LEDGER_ANSWER_WITHIN_S", raising=False)
    async with ingress(own_kafka.bootstrap, tmp_path, own_pace=True) as started:
        await started.wait_status("/readyz", 200)
        own_kafka.pause()
        began = time.monotonic()
        prompt = [started.deliver(event(f"evt_{n}")) for n in range(20)]
        answers = await asyncio.gather(*prompt, deliver_slowly(started, event("evt_slow")))
        took_s = time.monotonic() - began
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["code"] for answer in answers} == {"log_unavailable"}
        # Ingress waited for Kafka. The time limit begins when a request arrives, not when its body
        # ends.
        assert 5 < took_s < 10


async def deliver_slowly(started: Ingress, body: bytes) -> httpx.Response:
    """Deliver a body whose second half arrives three seconds after the first half."""

    async def halves() -> AsyncIterator[bytes]:
        yield body[:10]
        await asyncio.sleep(3)
        yield body[10:]

    return await started.client.post(PATH, content=halves(), headers=signed(body))


def assert_no_spam(started: Ingress) -> None:
    """Check that ingress logged one line per change of state, however long the outage was."""
    events = [line["event"] for line in started.lines()]
    assert 4 <= len(events) <= 9, started.lines()
    assert events[-1] == "log_connected"
    assert set(events) == {"libraries", "listening", "log_connected", "log_unavailable"}


async def test_ingress_starts_before_kafka_and_before_the_topics_exist(kafka_cache, tmp_path):
    broker = EmbeddedKafka(tmp_path / "kafka", cache=kafka_cache)
    async with ingress(broker.bootstrap, tmp_path, create_topics=False) as started:
        answer = await started.client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "Kafka does not answer")
        assert (await started.deliver(event())).json()["code"] == "log_unavailable"
        await asyncio.to_thread(broker.start)
        try:
            await until_detail_names(started, names_of(started.env).webhooks)
            answer = await started.deliver(event())
            assert answer.status_code == 503
            assert "create them with `plexy-ledger topics`" in answer.json()["detail"]
            await ensure_topics(TopicSettings.from_environment(started.env))
            await started.wait_status("/readyz", 200)
            assert (await started.deliver(event())).status_code == 200
            assert_no_spam(started)
        finally:
            await asyncio.to_thread(broker.stop)


async def until_detail_names(started: Ingress, topic: str, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while topic not in (await started.client.get("/readyz")).json().get("detail", ""):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_after_sigterm_under_load_the_exit_code_is_0_and_the_log_has_every_accepted_delivery(
    running,
):
    load = Load(running, senders=16)
    await until(lambda: len(load.accepted) > 100)
    running.process.terminate()
    assert await asyncio.to_thread(running.process.wait, 10) == 0
    await load.ended()
    assert set(load.answers.values()) == {200}
    kept = Counter(record.value for record in await running.log_of_record())
    assert [body for body in load.accepted if kept[body] != 1] == []


async def test_after_sigterm_in_an_outage_ingress_ends_on_time_with_exit_code_0(
    own_kafka, tmp_path
):
    async with ingress(own_kafka.bootstrap, tmp_path) as started:
        await started.wait_status("/readyz", 200)
        own_kafka.pause()
        waiting = asyncio.create_task(started.deliver(event()))
        await asyncio.sleep(0.2)
        started.process.terminate()
        assert (await waiting).status_code == 503
        assert await asyncio.to_thread(started.process.wait, 10) == 0


async def test_only_deliveries_above_the_limit_are_refused_after_the_limit_is_lowered(
    kafka, tmp_path
):
    """An operator lowers `max.message.bytes` under load. The broker first refuses whole batches."""
    async with ingress(kafka.bootstrap, tmp_path) as started:
        await started.wait_status("/readyz", 200)
        load = Load(started, senders=16)
        await until(lambda: len(load.accepted) > 100)
        await alter(started.env, *names_of(started.env).shared, max_message_bytes="1000")
        large = event("evt_large", padding="x" * 3000)
        await refused_as_too_large(started, large)
        before = len(load.accepted)
        await until(lambda: len(load.accepted) > before + 200)
        invalid = event("evt_invalid", created="yesterday", padding="x" * 3000)
        await refused_as_too_large(started, invalid)
        assert await started.status("/readyz") == 200
        await load.stop()
        assert set(load.answers.values()) == {200}
        kept = Counter(record.value for record in await started.log_of_record())
        assert [body for body in load.accepted if not kept[body]] == []
        said = "a topic is not as expected"
        line = next(each for each in started.lines() if each["event"] == said)
        assert "max.message.bytes=1000, expected at least 10485760" in line["fault"]
        assert "log_unavailable" not in {each["event"] for each in started.lines()}
        await alter(started.env, *names_of(started.env).shared, max_message_bytes="10485760")
        await started.deliver_until_accepted(large)


async def refused_as_too_large(started: Ingress, body: bytes) -> None:
    answer = await started.deliver(body)
    while answer.status_code in {200, 400}:
        # Some threads of the broker may not use the lowered limit yet.
        answer = await started.deliver(body)
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    detail = answer.json()["detail"]
    assert "takes at most" in detail
    assert "--add-config max.message.bytes=10485760" in detail


async def test_records_that_timed_out_do_not_stay_in_memory(own_kafka, tmp_path):
    env = environment(own_kafka.bootstrap, tmp_path, webhook_secrets=SECRET, answer_within_s=2)
    await ensure_topics(TopicSettings.from_environment(env))
    log = WebhookLog(IngestSettings.from_environment(env))
    # An earlier test may have left batches in memory, for example in the traceback of its failure.
    before = batches_in_memory()
    await log.start()
    try:
        assert await log.trouble() is None
        own_kafka.pause()
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcomes = await asyncio.gather(
            *(log.append(a_record(env, n), began + 1.5) for n in range(500)),
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {LogUnavailableError}
        assert loop.time() - began < 2
        # The errors refer to the frames that raised them, and the frames refer to the batches. So
        # the batches stay in memory until the errors are deleted.
        del outcomes
        await until(lambda: batches_in_memory() <= before)
        own_kafka.resume()
        await until_appended(log, env)
    finally:
        await log.close()
    assert batches_in_memory() <= before


def a_record(env: Mapping[str, str], number: int) -> NewRecord:
    return NewRecord(names_of(env).webhooks, b"evt_%d" % number, b"x" * 10_000, [], 1)


def batches_in_memory() -> set[int]:
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, MessageBatch)}


async def until_appended(log: WebhookLog, env: Mapping[str, str]) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(LogUnavailableError):
                await log.append(a_record(env, 0), asyncio.get_running_loop().time() + 1.5)
                return
            await asyncio.sleep(0.05)
