"""`plexy-ledger demo` checks its results, and never waits forever for the workers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.demo import sample
from cli.errors import NotFoldedError, ProgramEndedError
from cli.kafka.broker import EmbeddedKafka
from cli.topics.lag import Lag, TopicMissingError
from cli.topics.ledger_reader import open_reader
from runtime.kafka.batches import OutRecord, send_by_key
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka import harness

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("kafka_cache")]


def _demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    if cache := os.environ.get("LEDGER_KAFKA_CACHE"):
        kept["LEDGER_KAFKA_CACHE"] = cache
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", *arguments],
        env=kept | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_shows_every_order_and_leaves_no_files(tmp_path):
    with _demo(tmp_path) as demo:
        output, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, output
    outcome = sample.expected()
    for order_id in outcome.orders:
        assert order_id in output
    for refusal in outcome.refused:
        assert refusal.code in output
    for rejected in outcome.rejected:
        assert rejected.reason in output
    assert list(tmp_path.iterdir()) == []


def test_the_demo_fails_and_reports_the_order_that_differs(tmp_path):
    expected = json.loads(Path(sample.__file__).with_name("expected.json").read_bytes())
    expected["orders"]["ord_1004"]["totals"]["EUR"]["refunded"] = 8991
    altered = tmp_path / "altered.json"
    altered.write_text(json.dumps(expected))
    with _demo(tmp_path, "--expected", str(altered)) as demo:
        output, _ = demo.communicate(timeout=200)
    assert demo.returncode == 1, output
    differing = [
        line for line in output.splitlines() if "expected" in line and "order ord_" in line
    ]
    assert differing == ["  order ord_1004: totals.EUR.refunded: expected 8991, got 8990"]


def test_an_interrupt_ends_the_demo_cleanly(tmp_path):
    with _demo(tmp_path) as demo:
        harness.until(lambda: list(tmp_path.glob("*/kafka/data")), within_s=60, what="a broker")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


async def _settle(settings: TopicSettings, timeout_s: float, **options: Any) -> None:
    async with open_reader(settings) as reader:
        await reader.settle(timeout_s, **options)


async def _read(settings: TopicSettings, topic: str) -> list[Any]:
    async with open_reader(settings) as reader:
        return await reader.whole(topic)


async def _with_topics(kafka: EmbeddedKafka) -> tuple[TopicSettings, Callable[..., object]]:
    env = harness.environment(kafka.bootstrap, Path(tempfile.gettempdir()))
    settings = TopicSettings.from_environment(env)
    await ensure_topics(settings)
    return settings, partial(_settle, settings)


async def _write_event(settings: TopicSettings, topic: str) -> None:
    async with harness.producer(settings.bootstrap_servers[0]) as producer:
        await send_by_key(producer, topic, [OutRecord(b"evt_1", b"{}")], settings.partitions)


async def test_the_wait_for_an_empty_log_ends_at_once(kafka):
    _, wait = await _with_topics(kafka)
    lags: list[Lag] = []
    await wait(timeout_s=10, report=lags.append)
    assert [lag[1:] for lag in lags] == [(0, 0)] * 3


async def test_without_a_worker_the_wait_ends_and_counts_the_records_that_are_not_folded(kafka):
    settings, wait = await _with_topics(kafka)
    topic = f"{settings.topic_prefix}plexy.webhooks"
    await _write_event(settings, topic)
    with pytest.raises(NotFoldedError, match=f"1 of 1 records of {topic} are not folded"):
        await wait(timeout_s=0.2)


async def test_the_wait_fails_when_a_program_has_ended(kafka):
    settings, wait = await _with_topics(kafka)
    await _write_event(settings, f"{settings.topic_prefix}plexy.webhooks")

    def still_alive(_lag: Lag) -> None:
        raise ProgramEndedError("worker ended with exit code 1")

    with pytest.raises(ProgramEndedError):
        await wait(timeout_s=60, report=still_alive)


async def test_a_missing_topic_is_not_mistaken_for_an_empty_topic(kafka):
    settings, _ = await _with_topics(kafka)
    other = msgspec.structs.replace(settings, topic_prefix=f"{settings.topic_prefix}other.")
    with pytest.raises(TopicMissingError, match=r"plexy\.webhooks"):
        await _settle(other, 10)
    with pytest.raises(TopicMissingError, match="nowhere"):
        await _read(settings, f"{settings.topic_prefix}nowhere")


async def test_every_record_of_a_topic_is_read(kafka):
    settings, _ = await _with_topics(kafka)
    topic = f"{settings.topic_prefix}plexy.rejected"
    assert await _read(settings, topic) == []
    await _write_event(settings, topic)
    assert [record.value for record in await _read(settings, topic)] == [b"{}"]
