"""A worker ends when one of its topics is deleted; its reason and `status` name the topic."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from tests.kafka.harness import (
    environment,
    event,
    group_of,
    names_of,
    run,
    worker_that_folded,
)
from tests.kafka.topics import delete

pytestmark = pytest.mark.timeout(240)

TOPICS: dict[str, Callable[[dict[str, str]], str]] = {
    "the log of record": lambda env: names_of(env).webhooks,
    "a source": lambda env: names_of(env).events,
    "an output": lambda env: names_of(env).entries,
    "a changelog": lambda env: changelog_name(group_of(env), "orders"),
}


@pytest.mark.parametrize("name", TOPICS)
def test_a_worker_whose_topic_is_deleted_ends_on_time_and_names_the_remedy(
    kafka: EmbeddedKafka, tmp_path: Path, name: str
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "ledger", standby_replicas=0)
    with worker_that_folded(env, (event(n) for n in range(20))) as worker:
        topic = TOPICS[name](env)
        asyncio.run(delete(env, topic))
        began_s = time.monotonic()
        reason = worker.reason_of_end(60)
        assert time.monotonic() - began_s < 40
    known = "plexy.log-" if topic == names_of(env).webhooks else f"workers of {group_of(env)} have"
    assert f"missing topics: {topic}. " in reason
    assert known in reason
    assert "`plexy-ledger rebuild`" in reason
    code, output = run(env, "status", "--json")
    (problem,) = [
        each for each in json.loads(output)["problems"] if each["code"] == "topic_missing"
    ]
    assert code == 1
    assert problem["detail"] in reason
