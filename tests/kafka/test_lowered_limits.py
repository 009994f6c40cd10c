"""An operator may lower ``max.message.bytes`` while a worker is running.

Records that fit are still written, in smaller batches. A record that does not fit ends the worker,
whose last log line names the remedy.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import MAX_RECORD_BYTES, TABLES, TopicNames, changelog_name
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    group_of,
    names_of,
    run,
    wait_folded,
    worker_that_folded,
)
from tests.kafka.topics import alter

pytestmark = pytest.mark.timeout(240)

LIMIT = 2000


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    made = environment(kafka.bootstrap, tmp_path / "ledger", allow_unsigned="true")
    asyncio.run(ensure_topics(TopicSettings.from_environment(made)))
    return made


def written_by_workers(env: dict[str, str]) -> dict[str, list[str]]:
    """Return the topics that a worker writes to, by their use."""
    names: TopicNames = names_of(env)
    return {
        "outputs": [names.events, names.payments, names.entries, names.orders, names.rejected],
        "changelogs": [changelog_name(group_of(env), table) for table in TABLES],
    }


def paid(number: int) -> dict[str, Any]:
    return event(number, merchantReference=f"ord_{number}")


def unfoldable(number: int) -> dict[str, Any]:
    """Return an event that is rejected because its reference is too long."""
    return event(number, merchantReference="x" * 600)


@pytest.mark.parametrize("topics", ["outputs", "changelogs"])
def test_a_workers_batches_respect_a_limit_that_is_lowered_while_the_worker_runs(
    env: dict[str, str], topics: str
) -> None:
    lowered = written_by_workers(env)[topics]
    with worker_that_folded(env, map(paid, range(10))) as worker:
        asyncio.run(alter(env, *lowered, max_message_bytes=str(LIMIT)))
        # Each record is smaller than the limit, but the records of a chunk together are larger.
        deliver(env, [paid(n) for n in range(10, 400)] + [unfoldable(n) for n in range(400, 420)])
        wait_folded(env, worker)
        assert worker.logged("batch refused")
        asyncio.run(alter(env, *lowered, max_message_bytes=str(MAX_RECORD_BYTES)))
        code, output = run(env, "verify")
        assert code == 0, output
        worker.stop()


def test_a_record_above_a_lowered_limit_ends_the_worker_and_the_error_names_the_remedy(
    env: dict[str, str],
) -> None:
    orders = names_of(env).orders
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        asyncio.run(alter(env, orders, max_message_bytes=str(LIMIT)))
        deliver(env, [event(n, merchantReference="one order") for n in range(100)])
        reason = worker.reason_of_end(within_s=60)
    assert f"topic {orders} takes at most {LIMIT} bytes, but this record has " in reason
    assert "key b'one order'" in reason
    assert f"--alter --topic {orders} --add-config max.message.bytes=10485760`" in reason
    assert "\n" not in reason
