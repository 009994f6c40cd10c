"""A worker sets aside records that ended the workers of earlier releases, and folds all others.

The tests call these records poison. One worker reads them among good events. To set a record aside
means to write it to `plexy.rejected`, with the reason. Only the log decides which records are set
aside. So `verify` finds no difference, and a rebuild sets the same records aside.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import MAX_RECORD_BYTES, TopicNames
from runtime.kafka.batches import OutRecord
from runtime.kafka.partitions import partition_for
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    event,
    free_port,
    names_of,
    produce_batch,
    read_topic,
    run,
    state_of,
    wait_folded,
    write,
)
from tests.record_batches import MIB, PACKERS, batch, bomb, placed

pytestmark = pytest.mark.timeout(300)

# A batch with one record has this many bytes in addition to the record's key and value.
OVERHEAD_BYTES = 90
LARGEST_BYTES = MAX_RECORD_BYTES - OVERHEAD_BYTES
# A record with a header of this size still has space for an event.
LARGEST_HEADER_BYTES = LARGEST_BYTES - 300
BOMB_BYTES = 300 * MIB
numbers = count(1)


class Poison(NamedTuple):
    """A record from a foreign producer, and the reason why a worker sets it aside.

    ``reason`` is ``None`` if the record is good and has only an unusual form.
    """

    topic: Callable[[TopicNames], str]
    write: Callable[[dict[str, str], str], None]
    reason: str | None


def record(key: bytes, value: bytes | None, *headers: tuple[str, bytes]) -> Any:
    """Return a function that writes one record, as a producer would."""
    return lambda env, topic: write(env, topic, [OutRecord(key, value, headers)])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def batch_of(make: Callable[[], bytes], partition: int = 1) -> Any:
    """Return a function that writes one batch, byte for byte."""
    return lambda env, topic: produce_batch(env, topic, partition, make())


def good(number: int) -> tuple[bytes, bytes]:
    body = event(number)
    return str(body["id"]).encode(), json.dumps(body).encode()


def odd_headers() -> bytes:
    key, value = good(900_001)
    written = batch((key, value, [("hx", b"1")]), timestamp_ms=now_ms())
    return placed(written.replace(b"hx", b"\xff\xfe"), 0)


def two_long_statuses(env: dict[str, str], topic: str) -> None:
    """Write two events of one payment; a row with both statuses would be too large for a record."""
    long = "x" * 6 * MIB
    paid = event(900_000, status=long)
    refunded = event(900_010, "refund.succeeded", payment_id="pay_900000", status=long)
    bodies = [(str(each["id"]).encode(), json.dumps(each).encode()) for each in (paid, refunded)]
    write(env, topic, [OutRecord(*each) for each in bodies])


def with_reference(reference: str) -> Any:
    """Return a function that writes a payment with this reference."""
    body = event(900_020, merchantReference=reference)
    return record(str(body["id"]).encode(), json.dumps(body).encode())


def webhooks(names: TopicNames) -> str:
    return names.webhooks


POISONS = {
    "a value of the largest size": Poison(
        webhooks, record(b"large", b"x" * LARGEST_BYTES), "malformed_json"
    ),
    "a key of the largest size": Poison(
        webhooks, record(b"k" * LARGEST_BYTES, b"{}"), "invalid_envelope"
    ),
    "an id whose JSON escapes make it six times longer": Poison(
        webhooks,
        record(b"\0" * 500, json.dumps(event(900_019) | {"id": "\0" * 500}).encode()),
        "control_characters",
    ),
    "a reference whose JSON escapes make it six times longer": Poison(
        webhooks, with_reference("\0" * 500), None
    ),
    "two statuses of six megabytes": Poison(webhooks, two_long_statuses, None),
    "a signature of the largest size": Poison(
        webhooks,
        record(*good(900_002), ("plexy-signature", b"x" * LARGEST_HEADER_BYTES)),
        None,
    ),
    "a trace of the largest size": Poison(
        webhooks, record(*good(900_003), ("traceparent", b"x" * LARGEST_HEADER_BYTES)), None
    ),
    "a hundred thousand headers": Poison(
        webhooks, record(*good(900_004), *[(f"{n:x}", b"") for n in range(100_000)]), None
    ),
    "a header whose name is not text": Poison(
        webhooks,
        batch_of(odd_headers, partition_for(b"evt_900001", PARTITIONS)),
        None,
    ),
    "a batch that unpacks to 300 MiB": Poison(
        webhooks,
        batch_of(lambda: bomb(BOMB_BYTES, timestamp_ms=now_ms())),
        "batch_too_large",
    ),
    **{
        f"a batch that unpacks to 64 MiB, of codec {codec}": Poison(
            webhooks,
            batch_of(lambda codec=codec: bomb(64 * MIB, timestamp_ms=now_ms(), codec=codec)),
            "batch_too_large",
        )
        for codec in PACKERS
    },
    "a bomb among events": Poison(
        lambda names: names.events,
        batch_of(lambda: bomb(BOMB_BYTES, timestamp_ms=now_ms())),
        "batch_too_large",
    ),
    "bytes among events": Poison(
        lambda names: names.events, record(b"\xff\xfe", b"\xff\x00"), "unreadable"
    ),
    "a tombstone among events": Poison(
        lambda names: names.events, record(b"pay_1", None), "unreadable"
    ),
    "bytes of the largest size among events": Poison(
        lambda names: names.events, record(b"pay_1", b"\x9a" * LARGEST_BYTES), "unreadable"
    ),
    "a record without a key among events": Poison(
        lambda names: names.events,
        batch_of(lambda: batch((None, b"\x9a", []), timestamp_ms=now_ms())),
        "unreadable",
    ),
    "bytes among payments": Poison(
        lambda names: names.payments, record(b"\xff\xfe", b"\xff\x00"), "unreadable"
    ),
    "a tombstone among payments": Poison(
        lambda names: names.payments, record(b"pay_1", None), "unreadable"
    ),
    "bytes of the largest size among payments": Poison(
        lambda names: names.payments, record(b"pay_1", b"\x94" * LARGEST_BYTES), "unreadable"
    ),
}


@pytest.fixture(scope="module")
def ledger(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Run a worker with traces on, so that the worker also reads headers."""
    folder: Path = tmp_path_factory.mktemp("poison")
    env = environment(kafka.bootstrap, folder, allow_unsigned="true", traces="otlp")
    # No program listens at this address, so no program receives the spans.
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        yield worker


def fold_more(ledger: WorkerProcess) -> None:
    """Deliver events to every partition, and wait until the worker has folded all of them."""
    deliver(ledger.env, [event(next(numbers)) for _ in range(12)])
    wait_folded(ledger.env, ledger, within_s=90)


def rejections(env: dict[str, str]) -> list[dict[str, str]]:
    return [
        {name: value.decode() for name, value in each.headers}
        for each in read_topic(env, names_of(env).rejected)
    ]


@pytest.mark.parametrize("name", POISONS)
def test_the_worker_reports_the_poison_and_continues_and_folds_all_other_records(ledger, name):
    poison, env = POISONS[name], ledger.env
    topic = poison.topic(names_of(env))
    fold_more(ledger)
    before, memory_mib = rejections(env), ledger.peak_mib()
    poison.write(env, topic)
    fold_more(ledger)
    new = [each for each in rejections(env) if each not in before]
    if poison.reason is None:
        assert new == []
    else:
        assert [(each["reason"], each["source-topic"]) for each in new] == [(poison.reason, topic)]
        assert ledger.logged("rejected")[-1]["reason"] == poison.reason
    # The worker copies a record of ten megabytes a few times, and unpacks no batch that is too
    # large.
    assert ledger.peak_mib() - memory_mib < 150


def test_verify_finds_no_difference_and_a_rebuild_sets_the_same_records_aside(ledger):
    env, names = ledger.env, names_of(ledger.env)
    for poison in POISONS.values():
        if poison.topic is webhooks:
            poison.write(env, names.webhooks)
    fold_more(ledger)
    code, output = run(env, "verify")
    assert code == 0, output
    of_log = [each for each in rejections(env) if each["source-topic"] == names.webhooks]
    code, output = run(env, "rebuild")
    assert code == 0, output
    again = [each for each in rejections(env) if each["source-topic"] == names.webhooks]
    assert len(again) == 2 * len(of_log)
    assert {tuple(sorted(each.items())) for each in again} == {
        tuple(sorted(each.items())) for each in of_log
    }


def test_a_backup_of_a_log_with_poison_is_restored_and_the_new_log_gives_the_same_state(
    ledger, kafka, tmp_path
):
    env, file = ledger.env, tmp_path / "poison.log"
    for name in ("a value of the largest size", "a batch that unpacks to 300 MiB"):
        POISONS[name].write(env, names_of(env).webhooks)
    fold_more(ledger)
    code, output = run(env, "export-log", file)
    assert code == 0, output
    other = environment(kafka.bootstrap, tmp_path / "other", allow_unsigned="true")
    code, output = run(other, "import-log", file)
    assert code == 0, output
    with WorkerProcess(other) as worker:
        worker.wait_ready(90)
        wait_folded(other, worker, within_s=90)
        state, expected = state_of(other), state_of(env)
        assert state["facts"] == expected["facts"]
        assert state["documents"] == expected["documents"]
        code, output = run(other, "verify")
        assert code == 0, output


def test_the_bytes_of_a_large_rejection_are_read_from_the_log(ledger):
    env, names = ledger.env, names_of(ledger.env)
    body = b"y" * LARGEST_BYTES
    write(env, names.webhooks, [OutRecord(b"shown", body)])
    fold_more(ledger)
    digest = sha256(body).hexdigest()
    code, output = run(env, "rejected", "list", "--json")
    assert code == 0, output
    items = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (item,) = [each for each in items if (each["unkept"] or {}).get("sha256") == digest]
    assert item["unkept"]["size_bytes"] == len(body)
    raw = subprocess.run(
        [sys.executable, "-m", "cli", "rejected", "show", "--raw", item["id"]],
        env=env,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert raw.stdout == body
    code, output = run(env, "rejected", "show", item["id"])
    assert f"{len(body):,} bytes, too large for the quarantine; SHA-256 {digest}" in output
    assert "a retry would leave it as it is: it is still rejected: malformed_json" in output
    status, page = ledger.get("/rejected?reason=malformed_json")
    assert status == 200
    assert item["unkept"] in [each.get("unkept") for each in page["items"]]
