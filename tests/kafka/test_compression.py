"""All programs can read the topics, whichever of Kafka's codecs an operator has chosen for them.

A broker compresses a topic's batches with the codec that the topic's ``compression.type`` names,
whichever producer sent the batches.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import all_topics
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    run,
    state_of,
    wait_folded,
)
from tests.kafka.topics import alter

pytestmark = pytest.mark.timeout(240)

ORDERS = 40


def payments(first: int) -> list[dict[str, object]]:
    return [event(n, merchantReference=f"ord_{n}") for n in range(first, first + ORDERS)]


def test_workers_and_commands_read_topics_that_are_compressed_with_any_codec(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Each start restores the tables from batches of earlier codecs; `verify` reads all batches."""
    env = environment(kafka.bootstrap, tmp_path / "ledger", allow_unsigned="true")
    settings = TopicSettings.from_environment(env)
    asyncio.run(ensure_topics(settings))
    everything = [topic.name for topic in all_topics(settings.names, settings.group_id)]
    folded, before = 0, state_of(env)
    for codec in ("gzip", "snappy", "lz4", "zstd", "producer"):
        asyncio.run(alter(env, *everything, compression_type=codec))
        # The worker no longer has its tables, so it restores them from their changelogs before it
        # continues to fold.
        shutil.rmtree(Path(env["LEDGER_DATA_DIR"]) / "tables", ignore_errors=True)
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            assert state_of(env) == before
            for n in range(folded):
                assert worker.get(f"/orders/ord_{n}")[0] == 200
            deliver(env, payments(folded))
            wait_folded(env, worker)
            worker.stop()
        folded, before = folded + ORDERS, state_of(env)
    code, output = run(env, "verify")
    assert code == 0, output
    code, output = run(env, "export-log", tmp_path / "log")
    assert (code, f"{folded} in " in output) == (0, True), output
