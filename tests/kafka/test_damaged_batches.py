"""A batch that can't be read is reported with its place, and never stops a worker silently.

A broker refuses such batches from producers. So the tests change the broker's files, as a failing
disk would.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import changelog_name
from runtime.kafka.partitions import partition_for
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    event,
    group_of,
    names_of,
    orders,
    produce_batch,
    run,
    wait_folded,
    worker_that_folded,
)
from tests.record_batches import HEADER, PACKERS, batch, placed, with_codec

pytestmark = pytest.mark.timeout(300)

PARTITION = 1
UNKNOWN_CODECS = (5, 6, 7)
# The ids of the events with these numbers belong to the partition.
NUMBERS = [n for n in range(200) if partition_for(f"evt_{n}".encode(), PARTITIONS) == PARTITION]

Change = Callable[[bytes], bytes]


def of_codec(codec: int) -> Change:
    """Return a function that marks a batch as compressed with a codec, and fixes its checksum."""
    return lambda written: with_codec(written, codec)


def with_damaged_body(written: bytes) -> bytes:
    """Return a batch that has a correct checksum, but whose records can't be unpacked."""
    body = bytearray(written[HEADER.size :])
    body[:16] = b"\xff" * 16
    return placed(written[: HEADER.size] + bytes(body), HEADER.unpack_from(written)[0])


def with_wrong_checksum(written: bytes) -> bytes:
    return written[:-3] + bytes([written[-3] ^ 1]) + written[-2:]


def change(broker: EmbeddedKafka, topic: str, changes: dict[int, Change]) -> None:
    """Stop the broker, change batches at the given offsets of the partition, and start the broker.

    The offset -1 stands for the last batch.
    """
    (segment,) = (broker.folder / "data" / f"{topic}-{PARTITION}").glob("*.log")
    broker.stop()
    data, batches = segment.read_bytes(), dict[int, bytes]()
    while data:
        offset, length, *_ = HEADER.unpack_from(data)
        batches[offset], data = data[: 12 + length], data[12 + length :]
    for offset, how in changes.items():
        at = offset if offset >= 0 else max(batches)
        batches[at] = how(batches[at])
    segment.write_bytes(b"".join(batches.values()))
    broker.start()


@pytest.fixture
def broker(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "own", cache=kafka_cache) as own:
        yield own


@pytest.fixture
def env(broker: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    made = environment(broker.bootstrap, tmp_path / "ledger", allow_unsigned="true")
    assert run(made, "topics")[0] == 0
    return made


def append(env: dict[str, str], codecs: list[int]) -> None:
    """For each codec, append a batch that contains one event."""
    log, now_ms = names_of(env).webhooks, time.time_ns() // 1_000_000
    for number, codec in zip(NUMBERS, codecs, strict=False):
        body = event(number)
        fields = str(body["id"]).encode(), json.dumps(body).encode(), []
        produce_batch(env, log, PARTITION, batch(fields, codec=codec, timestamp_ms=now_ms))


def test_batches_that_cannot_be_unpacked_are_set_aside_with_their_places_and_the_rest_is_folded(
    broker: EmbeddedKafka, env: dict[str, str]
) -> None:
    log = names_of(env).webhooks
    damages = [of_codec(codec) for codec in UNKNOWN_CODECS] + [with_damaged_body] * len(PACKERS)
    codecs = [0] * len(UNKNOWN_CODECS) + [*PACKERS]
    # Each damaged batch is followed by a good batch.
    append(env, [each for codec in codecs for each in (codec, 0)])
    change(broker, log, {2 * at: how for at, how in enumerate(damages)})
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        wait_folded(env, worker)
        said = [
            (each["reason"], each["topic"], each["partition"], each["offset"])
            for each in worker.logged("rejected")
        ]
        assert said == [
            ("batch_unreadable", log, PARTITION, 2 * at) for at, _ in enumerate(damages)
        ]
        for at, number in enumerate(NUMBERS[: 2 * len(damages)]):
            assert worker.get(f"/payments/pay_{number}")[0] == (200 if at % 2 else 404)
        code, printed = run(env, "verify")
        assert code == 0, printed
        code, printed = run(env, "rejected", "list", "--json")
        assert all(f"Kafka has no codec {codec}" in printed for codec in UNKNOWN_CODECS), printed
    code, printed = run(env, "export-log", Path(env["LEDGER_DATA_DIR"]) / "file")
    assert code == 0, printed


def test_a_wrong_checksum_in_the_log_ends_the_worker_and_the_error_has_the_place_and_the_remedy(
    broker: EmbeddedKafka, env: dict[str, str]
) -> None:
    log = names_of(env).webhooks
    append(env, [0, 0, 0])
    change(broker, log, {1: with_wrong_checksum})
    with WorkerProcess(env) as worker:
        reason = worker.reason_of_end(within_s=60)
    assert f"{log}[{PARTITION}] is damaged at offset 1: " in reason
    assert "Restore it from a replica or a backup" in reason


@pytest.mark.parametrize(
    ("how", "said", "remedy"),
    [
        (with_wrong_checksum, "is damaged at offset", "Restore it from a replica or a backup"),
        (of_codec(5), "can't be applied at offset", "`plexy-ledger rebuild`"),
    ],
    ids=["checksum", "codec"],
)
def test_an_unreadable_changelog_batch_ends_the_worker_and_the_error_has_the_place_and_the_remedy(
    broker: EmbeddedKafka, env: dict[str, str], how: Change, said: str, remedy: str
) -> None:
    changelog = changelog_name(group_of(env), "orders")
    with worker_that_folded(env, orders(range(40))) as worker:
        worker.stop()
    change(broker, changelog, {-1: how})
    shutil.rmtree(Path(env["LEDGER_DATA_DIR"]) / "tables")
    with WorkerProcess(env) as worker:
        reason = worker.reason_of_end(within_s=60)
    assert f"{changelog}[{PARTITION}] {said}" in reason
    assert remedy in reason
