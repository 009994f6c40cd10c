"""A worker ends when one of its topics is deleted; the worker and `status` name the topic."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    group_of,
    names_of,
    positions,
    run,
    worker_that_folded,
)
from tests.kafka.topics import delete

pytestmark = pytest.mark.timeout(240)

ENDS_WITHIN_S = 40
TOPICS: dict[str, Callable[[dict[str, str]], str]] = {
    "the log of record": lambda env: names_of(env).webhooks,
    "a source": lambda env: names_of(env).events,
    "an output": lambda env: names_of(env).entries,
    "a changelog": lambda env: changelog_name(group_of(env), "orders"),
    "a source, under load": lambda env: names_of(env).payments,
    "an output, under load": lambda env: names_of(env).orders,
    "a changelog, under load": lambda env: changelog_name(group_of(env), "payments"),
}
# A worker needs several seconds to fold so many events.
BACKLOG = 20_000


class Deletion(NamedTuple):
    """A worker that has lost a topic, and the time by which the worker must have ended."""

    worker: WorkerProcess
    topic: str
    ends_by_s: float


@pytest.fixture(scope="module")
def deletions(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Deletion]]:
    """Run one ledger per case, and delete one topic of each ledger; the workers end concurrently.

    Some workers have a backlog, so that they are folding and writing when the topic is deleted.
    """
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
            if "under load" in name:
                deliver(worker.env, (event(n) for n in range(20, BACKLOG)))
                unfolded = [at.end - at.committed for at in positions(worker.env).values()]
                assert sum(unfolded), "the backlog was folded before the topic was deleted"
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
