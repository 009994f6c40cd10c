"""The number of simultaneous reads is limited, and a read ends even if Kafka never answers."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from ledger.topics import TopicNames
from processors import rejections
from runtime.kafka import topic_reader
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.topic_reader import (
    LogUnreadableError,
    TooManyReadingsError,
    TopicReader,
)


class RecordedConsumer(topic_reader.AIOKafkaConsumer):
    """A consumer that records its instances, so that a test sees whether they were stopped."""

    made: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made.append(self)


@pytest.fixture
async def silent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaSettings]:
    """Run a server that accepts connections and never answers; yield settings with its address."""
    monkeypatch.setattr(topic_reader, "AIOKafkaConsumer", RecordedConsumer)
    monkeypatch.setattr(RecordedConsumer, "made", [])

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield KafkaSettings(kafka_bootstrap=f"127.0.0.1:{port}")


async def test_the_time_limit_of_a_read_includes_the_wait_for_a_client(silent, monkeypatch):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 1.0)
    reader = TopicReader(silent)
    readings = [asyncio.create_task(reader.ends("topic", 1)) for _ in range(20)]
    # Only three reads run at a time. If the limit did not include the wait, 20 reads would take
    # seven times as long.
    done, late = await asyncio.wait(readings, timeout=5)
    assert not late
    assert {type(each.exception()) for each in done} == {LogUnreadableError}
    await reader.close()


async def test_a_further_read_is_refused_at_once_while_too_many_reads_run(silent, monkeypatch):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 2.0)
    monkeypatch.setattr(topic_reader, "_MOST_READINGS", 5)
    reader = TopicReader(silent)
    readings = [asyncio.create_task(reader.ends("topic", 1)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyReadingsError, match="5 other readings"):
        await reader.ends("topic", 1)
    assert not any(each.done() for each in readings)
    await asyncio.wait(readings)
    # The first reads have ended, so a new read may start.
    with pytest.raises(LogUnreadableError, match="did not answer for topic"):
        await reader.ends("topic", 1)
    await reader.close()


async def test_a_client_that_gets_no_answer_is_stopped(silent, monkeypatch):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 0.2)
    reader = TopicReader(silent)
    for _ in range(3):
        with pytest.raises(LogUnreadableError):
            await reader.ends("topic", 1)
    await reader.close()
    assert len(RecordedConsumer.made) == 3
    assert all(client._closed for client in RecordedConsumer.made)
    RecordedConsumer.made.clear()
    # If a client were still open, it would cause a warning now, and warnings fail a test.
    gc.collect()


async def test_the_wait_for_another_read_of_the_rejections_is_also_limited(silent, monkeypatch):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 1.0)
    reader = TopicReader(silent)
    rejected = rejections.Rejections(reader, TopicNames(), 1)
    done, late = await asyncio.wait(
        [asyncio.create_task(rejected.now()) for _ in range(20)], timeout=5
    )
    assert not late
    assert {type(each.exception()) for each in done} == {LogUnreadableError}
    await reader.close()
