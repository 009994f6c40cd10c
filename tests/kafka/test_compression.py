"""All programs read topics that an operator has compressed, with each of Kafka's codecs.

A broker compresses the batches for a topic with ``compression.type``, whichever producer sent them.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import all_topics
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    deliver,
    environment,
    event,
    run,
    state_of,
    wait_folded,
    worker_that_folded,
)
from tests.kafka.topics import alter

pytestmark = pytest.mark.timeout(240)

ORDERS = 40


def payments(first: int) -> list[dict[str, object]]:
    return [event(n, merchantReference=f"ord_{n}") for n in range(first, first + ORDERS)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_workers_and_commands_read_topics_of_every_codec(
    kafka: EmbeddedKafka, tmp_path: Path, codec: str
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "ledger", allow_unsigned="true")
    settings = TopicSettings.from_environment(env)
    asyncio.run(ensure_topics(settings))
    everything = [topic.name for topic in all_topics(settings.names, settings.group_id)]
    asyncio.run(alter(env, *everything, compression_type=codec))
    with worker_that_folded(env, payments(0)) as worker:
        worker.stop()
        before = state_of(env)
        # The worker restores its tables from their changelogs, and continues to fold.
        shutil.rmtree(Path(env["LEDGER_DATA_DIR"]) / "tables")
        worker.start()
        worker.wait_ready()
        assert {worker.get(f"/orders/ord_{n}")[0] for n in range(ORDERS)} == {200}
        assert state_of(env) == before
        deliver(env, payments(ORDERS))
        wait_folded(env, worker)
        code, output = run(env, "verify")
        assert code == 0, output
    code, output = run(env, "export-log", tmp_path / "log")
    assert (code, f"{2 * ORDERS} in " in output) == (0, True), output
