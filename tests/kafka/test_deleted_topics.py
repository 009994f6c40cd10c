"""Programs end or answer 503 when one of their topics is deleted, also while deliveries arrive."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ledger.topics import TopicNames, all_topics, changelog_name
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    event,
    group_of,
    names_of,
    read_topic,
    run,
    until,
    worker_that_folded,
)
from tests.kafka.programs import paid, program, wait_ingress, wait_refused
from tests.kafka.topics import delete, describe

pytestmark = pytest.mark.timeout(240)

ENDS_WITHIN_S = 40
TOPICS: dict[str, Callable[[dict[str, str]], str]] = {
    "the log of record": lambda env: names_of(env).webhooks,
    "a source": lambda env: names_of(env).events,
    "an output": lambda env: names_of(env).entries,
    "a changelog": lambda env: changelog_name(group_of(env), "orders"),
}


class Deletion(NamedTuple):
    """A worker that has lost a topic, and the time by which the worker must have ended."""

    worker: WorkerProcess
    topic: str
    ends_by_s: float


@pytest.fixture(scope="module")
def deletions(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Deletion]]:
    """Delete one topic of each of four ledgers; their workers notice it at the same time."""
    with ExitStack() as workers:
        running = {}
        for name in TOPICS:
            folder = tmp_path_factory.mktemp("ledger")
            env = environment(kafka.bootstrap, folder, standby_replicas=0)
            folded = worker_that_folded(env, (event(n) for n in range(20)))
            running[name] = workers.enter_context(folded)
        found = {}
        for name, worker in running.items():
            topic = TOPICS[name](worker.env)
            asyncio.run(delete(worker.env, topic))
            found[name] = Deletion(worker, topic, time.monotonic() + ENDS_WITHIN_S)
        yield found


@pytest.mark.parametrize("name", TOPICS)
def test_a_worker_whose_topic_is_deleted_ends_on_time_and_names_the_remedy(
    deletions: dict[str, Deletion], name: str
) -> None:
    worker, topic, ends_by_s = deletions[name]
    env = worker.env
    reason = worker.reason_of_end(ends_by_s - time.monotonic())
    known = "plexy.log-" if topic == names_of(env).webhooks else "ledger.topics-"
    assert f"missing topics: {topic}. " in reason
    assert known in reason
    assert "`plexy-ledger rebuild`" in reason
    code, output = run(env, "status", "--json")
    (problem,) = [
        each for each in json.loads(output)["problems"] if each["code"] == "topic_missing"
    ]
    assert code == 1
    assert problem["detail"] in reason


class Load:
    """Posts deliveries from two threads until the end of the block.

    Every fourth body is one that ingress refuses, and keeps in ``plexy.rejected``. ``kept`` maps
    the number of each delivery that ingress acknowledged to the time at which it was sent.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.kept: dict[int, float] = {}
        self.refused: dict[int, float] = {}
        self._url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/webhooks/plexy"
        self._numbers = count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._post) for _ in range(2)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _post(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            for number in iter(lambda: next(self._numbers), None):
                if self._over.is_set():
                    return
                body = paid(number) if number % 4 else {"id": f"evt_{number}"}
                sent_s = time.monotonic()
                answer = client.post(self._url, json=body)
                if answer.status_code == 503:
                    time.sleep(0.05)
                else:
                    kept = self.kept if number % 4 else self.refused
                    assert answer.status_code == (200 if number % 4 else 400), answer.text
                    kept[number] = sent_s


def loaded(kafka: EmbeddedKafka, folder: Path) -> dict[str, str]:
    env = environment(
        kafka.bootstrap,
        folder / "ledger",
        allow_unsigned="true",
        ingest_port=free_port(),
        answer_within_s=4,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    return env


# A broker goes on to append for a moment after its metadata no longer has the topic.
BROKER_TAKES_S = 1.0


WITH_ONE_CHANGELOG = all_topics(TopicNames(), "plexy-ledger")[:7]


@pytest.mark.parametrize("number", range(7), ids=[each.name for each in WITH_ONE_CHANGELOG])
def test_a_topic_deleted_under_load_ends_the_worker_and_no_delivery_is_acknowledged_into_it(
    usual_kafka: EmbeddedKafka, tmp_path: Path, number: int
) -> None:
    """The broker would create the topic again if a program asked for it."""
    env = loaded(usual_kafka, tmp_path)
    names = names_of(env)
    topic = TopicSettings.from_environment(env).topics[number].name
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        with Load(env) as load:
            until(lambda: len(load.kept) > 100, within_s=60, what="100 deliveries")
            asyncio.run(delete(env, topic))
            deleted_s = time.monotonic()
            reason = worker.reason_of_end(within_s=60)
            if topic in names.shared:
                wait_refused(env, f"missing topics: {topic}", "lost")
        late = [n for n, at_s in load.kept.items() if at_s > deleted_s + BROKER_TAKES_S]
        assert (late == []) == (topic in names.shared)
        code, output = run(env, "worker")
        assert (code, f"missing topics: {topic}. " in output) == (1, True), output
        for said in (reason, output):
            assert topic in said
            assert "`plexy-ledger rebuild`" in said
    assert topic not in asyncio.run(describe(env))
    if topic != names.webhooks:
        in_log = {record.key.decode() for record in read_topic(env, names.webhooks)}
        assert {f"evt_{n}" for n in load.kept} <= in_log
