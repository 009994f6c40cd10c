"""The backup of a log is restored byte for byte on a real broker, and gives the same state.

The ledger receives deliveries over HTTP, through a real ingress, during the backup.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from cli.kafka.broker import EmbeddedKafka
from cli.log.log_file import Block, Header, LogFile, LogFileWriter, LogRecord
from cli.run.local import running
from cli.run.programs import Command
from runtime.kafka.batches import OutRecord, partition_for
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    free_port,
    names_of,
    read_topic,
    run,
    state_of,
    until,
    wait_folded,
    write,
)
from tests.kafka.programs import start_piped
from tests.kafka.topics import alter, delete_records

pytestmark = pytest.mark.timeout(300)

_SECRET = "whsec_test_key_now"


def log_of(env: dict[str, str]) -> list[tuple[Any, ...]]:
    """Return each record of the log with all its parts, in the log's order."""
    return sorted(
        (r.partition, r.offset, r.timestamp, r.timestamp_type, r.key, r.value, tuple(r.headers))
        for r in read_topic(env, names_of(env).webhooks)
    )


def log_in(path: Path) -> list[tuple[Any, ...]]:
    """Return each record of a file in the form of ``log_of``."""
    with path.open("rb") as file:
        return sorted(
            (block.partition, offset, r.timestamp_ms, 0, r.key, r.value, r.headers)
            for block in LogFile(file).blocks()
            for offset, r in enumerate(block.records, block.offset)
        )


def new_ledger(kafka: EmbeddedKafka, folder: Path, **more: object) -> dict[str, str]:
    return environment(kafka.bootstrap, folder, webhook_secrets=_SECRET, **more)


@pytest.fixture(scope="module")
def live(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], Path, Path]]:
    """Run a ledger; yield its settings and two exported files.

    The first file was exported while deliveries arrived. The second file has the whole log.
    """
    folder = tmp_path_factory.mktemp("live")
    env = new_ledger(kafka, folder, ingest_port=free_port(), standby_replicas=0)
    middle, whole = folder / "middle.log", folder / "whole.log"
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    ingest, worker = Command("ingest", kept | env), Command("worker", kept | env)
    probes = [
        (ingest, f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/readyz"),
        (worker, f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/readyz"),
    ]
    simulate = ("simulate", "--seed", 5, "--events", 900, "--time-scale", 0.1, "--rate", 150)
    with running(probes), start_piped(env, *simulate) as sender:
        until(lambda: len(log_of(env)) > 150, within_s=60, what="deliveries")
        code, output = run(env, "export-log", middle)
        assert code == 0, output
        assert sender.poll() is None, "the simulation ended before the export did"
        output, _ = sender.communicate(timeout=120)
        assert sender.returncode == 0, output
        wait_folded(env)
        code, output = run(env, "export-log", whole)
        assert code == 0, output
        assert "wrote" in output
        yield env, middle, whole


def test_a_log_is_restored_byte_for_byte_and_folds_to_the_same_state(live, kafka, tmp_path):
    env, _, file = live
    other = new_ledger(kafka, tmp_path)
    code, output = run(other, "import-log", file)
    assert code == 0, output
    assert "The log is equal to the exported log" in output
    log = log_of(env)
    assert log_of(other) == log == log_in(file)
    assert len(log) > 900
    with WorkerProcess(other) as worker:
        worker.wait_ready(90)
        wait_folded(other, worker)
        state = state_of(other)
        assert state == state_of(env)
        assert all(state.values())
        code, output = run(other, "verify")
        assert code == 0, output
        assert "No difference" in output
    # A second import changes nothing.
    code, output = run(other, "import-log", file)
    assert code == 0, output
    assert ": 0 records written" in output
    assert log_of(other) == log


def test_an_export_during_deliveries_has_the_beginning_of_every_partition(live):
    env, middle, _ = live
    found, log = log_in(middle), log_of(env)
    assert 150 < len(found) < len(log)
    ends = Counter(record[0] for record in found)
    assert found == [record for record in log if record[1] < ends[record[0]]]


def test_the_import_of_a_later_file_continues_where_the_earlier_file_ended(live, kafka, tmp_path):
    env, middle, whole = live
    other = new_ledger(kafka, tmp_path)
    assert run(other, "import-log", middle)[0] == 0
    code, output = run(other, "import-log", whole)
    assert code == 0, output
    assert f"has {len(log_in(middle)):,} records of this file already" in output
    assert log_of(other) == log_of(env)
    code, output = run(other, "import-log", middle)
    assert code == 1
    assert "is not the beginning of this file" in output


def _tiny_blocks(path: Path, records: int) -> None:
    """Write a file with so many blocks that a test can interrupt its import."""
    ends = (records,) * PARTITIONS
    header = Header(topic="t", cluster_id="c", exported_at="now", begins=(0,) * 4, ends=ends)
    with path.open("wb") as file:
        writer = LogFileWriter(file, header)
        for offset in range(0, records, 2):
            for partition in range(PARTITIONS):
                names = [f"evt_{partition}_{offset + n}".encode() for n in range(2)]
                headers = (("received-at-ms", b"1"), ("empty", None))
                block = [LogRecord(1_000_000 - offset, name, b"{}", headers) for name in names]
                writer.write(Block(partition, offset, block))
        writer.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_import_continues_where_it_stopped(number, kafka, tmp_path):
    file = tmp_path / "tiny.log"
    _tiny_blocks(file, 3000)
    env = new_ledger(kafka, tmp_path)
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    with start_piped(env, "import-log", file) as importing:
        until(lambda: len(log_of(env)) > 50, within_s=60, what="the first records")
        importing.send_signal(number)
        output, _ = importing.communicate(timeout=60)
        assert importing.returncode == (130 if number is signal.SIGINT else -number), output
        assert "Traceback" not in output
    there = len(log_of(env))
    assert 50 < there < 12_000
    code, output = run(env, "import-log", file)
    assert code == 0, output
    assert f"has {there:,} records of this file already" in output
    assert f": {12_000 - there:,} records written" in output
    assert log_of(env) == log_in(file)

    copy = tmp_path / "copy.log"
    with start_piped(env, "export-log", copy) as exporting:
        until(lambda: list(tmp_path.glob("copy.log.*")), within_s=60, what="a file")
        exporting.send_signal(signal.SIGINT)
        output, _ = exporting.communicate(timeout=60)
        assert exporting.returncode == 130, output
    assert [path.name for path in tmp_path.glob("copy*")] == []


def test_an_import_notices_when_its_topic_starts_to_replace_the_times_of_records(kafka, tmp_path):
    file = tmp_path / "tiny.log"
    _tiny_blocks(file, 3000)
    env = new_ledger(kafka, tmp_path)
    log = names_of(env).webhooks
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    with start_piped(env, "import-log", file) as importing:
        until(lambda: len(log_of(env)) > 50, within_s=60, what="the first records")
        asyncio.run(alter(env, log, message_timestamp_type="LogAppendTime"))
        output, _ = importing.communicate(timeout=60)
    assert importing.returncode == 1, output
    assert f"{log} was changed to message.timestamp.type=LogAppendTime" in " ".join(output.split())
    assert "equal to the exported log" not in output
    # Kafka reads the setting twice in one append, so it may report new times but keep old times.
    has_other_times = any(timestamp_type for _, _, _, timestamp_type, *_ in log_of(env))
    asyncio.run(alter(env, log, message_timestamp_type="CreateTime"))
    code, output = run(env, "import-log", file)
    assert (code, "topic's record at offset" in output) == (int(has_other_times), has_other_times)


def test_a_topic_with_a_different_record_is_refused_and_nothing_is_written(live, kafka, tmp_path):
    _, _, file = live
    env = new_ledger(kafka, tmp_path)
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    write(env, names_of(env).webhooks, [OutRecord(b"evt_else", b"{}")])
    before = log_of(env)
    code, output = run(env, "import-log", file)
    assert code == 1
    partition = partition_for(b"evt_else", PARTITIONS)
    assert f"partition {partition}: the topic's record at offset 0 differs" in output
    assert "LEDGER_TOPIC_PREFIX" in output
    assert log_of(env) == before


def test_if_a_topic_refuses_the_times_of_records_the_error_names_the_settings(kafka, tmp_path):
    """The records' times are in the future; only the topic of the first ledger accepts them."""
    env = new_ledger(kafka, tmp_path / "ahead")
    assert run(env, "topics")[0] == 0
    log = names_of(env).webhooks
    asyncio.run(alter(env, log, message_timestamp_after_max_ms=str(2**63 - 1)))
    tomorrow_ms = (time.time_ns() // 1_000_000) + 24 * 3600 * 1000
    write(env, log, [OutRecord(b"evt_1", b"{}", timestamp_ms=tomorrow_ms)])
    file = tmp_path / "ahead.log"
    assert run(env, "export-log", file)[0] == 0

    code, output = run(new_ledger(kafka, tmp_path / "other"), "import-log", file)
    assert code == 1
    assert "message.timestamp.before.max.ms and message.timestamp.after.max.ms" in output


def test_a_different_number_of_partitions_is_refused_before_a_topic_is_created(
    live, kafka, tmp_path
):
    _, _, file = live
    env = new_ledger(kafka, tmp_path) | {"LEDGER_PARTITIONS": "3"}
    code, output = run(env, "import-log", file)
    assert code == 2
    assert "has 4 partitions, but LEDGER_PARTITIONS is 3: set LEDGER_PARTITIONS=4" in output
    code, output = run(env, "topics", "--check")
    assert "missing topics" in output


def test_the_error_for_a_damaged_file_names_the_block_and_no_topic_is_created(
    live, kafka, tmp_path
):
    _, _, file = live
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    damaged = tmp_path / "damaged.log"
    damaged.write_bytes(data)
    env = new_ledger(kafka, tmp_path)
    for options in ((), ("--check",)):
        code, output = run(env, "import-log", *options, damaged)
        assert code == 1
        (line,) = output.splitlines()
        assert "damaged.log: it is damaged at block " in line
    assert "missing topics" in run(env, "topics", "--check")[1]
    code, output = run({}, "import-log", "--check", file)
    assert code == 0, output
    assert "Every checksum is right" in output


def test_an_export_of_a_log_that_lost_its_beginning_reports_the_gap(kafka, tmp_path):
    env = new_ledger(kafka, tmp_path)
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    log = names_of(env).webhooks
    write(env, log, [OutRecord(b"evt_1", b"{}", timestamp_ms=n) for n in range(5)])
    partition = TopicPartition(log, partition_for(b"evt_1", PARTITIONS))
    asyncio.run(delete_records(env, partition, 2))
    file = tmp_path / "lost.log"
    code, output = run(env, "export-log", file)
    assert code == 1
    assert (
        f"partition {partition.partition}, offsets 0 to 1: the file has no record there" in output
    )
    assert [record[1:3] for record in log_in(file)] == [(2, 2), (3, 3), (4, 4)]
    other = new_ledger(kafka, tmp_path / "other")
    code, output = run(other, "import-log", file)
    assert code == 1
    assert "find an older file" in output
    assert "missing topics" in run(other, "topics", "--check")[1]


def test_an_existing_file_is_not_replaced(kafka, tmp_path):
    file = tmp_path / "taken.log"
    file.write_text("somebody's")
    code, output = run(new_ledger(kafka, tmp_path), "export-log", file)
    assert code == 2
    assert "exists already" in output
    assert file.read_text() == "somebody's"
    code, output = run(new_ledger(kafka, tmp_path), "export-log", tmp_path / "no" / "folder.log")
    assert code == 2
    assert "there is no folder" in output


def test_the_command_export_log_ends_with_one_line_and_leaves_no_file_if_kafka_is_down(tmp_path):
    env = {"LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}"}
    code, output = run(env, "export-log", tmp_path / "x.log")
    assert code == 1
    (line,) = output.splitlines()
    assert env["LEDGER_KAFKA_BOOTSTRAP"] in line
    assert list(tmp_path.iterdir()) == []
