"""When Kafka deletes records after they were folded, the programs report the loss.

The folded state is still right, so the state alone cannot show that the log has lost records.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ledger.topics import changelog_name
from runtime.kafka.batches import OutRecord
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    event,
    group_of,
    moved,
    names_of,
    positions,
    read_topic,
    run,
    until,
    wait_folded,
    worker_that_folded,
    write,
)
from tests.kafka.programs import ask_ingress, program, wait_ingress
from tests.kafka.topics import alter, delete_records

pytestmark = pytest.mark.timeout(240)

DAY_MS = "86400000"


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    made = environment(
        kafka.bootstrap, tmp_path / "ledger", allow_unsigned="true", ingest_port=free_port()
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(made)))
    return made


def paid(number: int) -> dict[str, Any]:
    return event(number, merchantReference=f"ord_{number}")


def problems(env: Mapping[str, str]) -> dict[str, str]:
    """Return the detail of each problem that `status` finds in Kafka or the worker, by its code."""
    code, output = run(env, "status", "--json")
    found = json.loads(output)["problems"]
    details = {each["code"]: each["detail"] for each in found if "ingest" not in each["subject"]}
    assert code == 1
    return details


def deleted_records(worker: WorkerProcess) -> dict[str, float]:
    """Return the worker's number of deleted records for each topic that has lost records."""
    url = f"http://127.0.0.1:{worker.env['LEDGER_WEB_PORT']}/metrics"
    name = "plexy_ledger_worker_deleted_records{"
    lines = [line for line in httpx.get(url, trust_env=False).text.splitlines() if name in line]
    numbers = {line.split(chr(34))[1]: float(line.rpartition(" ")[2]) for line in lines}
    return {topic: number for topic, number in numbers.items() if number}


def test_records_that_the_log_loses_after_folding_are_reported_and_new_deliveries_are_kept(
    env: dict[str, str],
) -> None:
    log = names_of(env).webhooks
    with WorkerProcess(env) as worker, program("ingest", env) as ingress:
        worker.wait_ready()
        wait_ingress(ingress)
        deliver(env, map(paid, range(40)))
        wait_folded(env, worker)
        asyncio.run(delete_records(env, TopicPartition(log, 0), 3))
        detail = worker.wait_for("records_deleted")["detail"]
        assert f"topic {log} has lost 3 records: partition 0 begins at offset 3" in detail
        assert deleted_records(worker) == {log: 3}
        assert f"topic {log} has lost 3 records" in problems(env)["records_deleted"]
        code, output = run(env, "topics", "--check")
        assert (code, f"topic {log} has lost 3 records" in output) == (1, True), output
        (line,) = worker.logged("a topic is not as expected")
        assert f"topic {log} has lost 3 records" in line["fault"]
        # The folded state is right, and new deliveries are kept and folded.
        assert worker.get("/orders/ord_0")[0] == 200
        url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/webhooks/plexy"
        assert httpx.post(url, json=paid(40), trust_env=False, timeout=30).status_code == 200
        assert ask_ingress(env, "/readyz")[0] == 200
        until(lambda: worker.get("/orders/ord_40")[0] == 200, within_s=30, what="the order")
        worker.stop()
        worker.start()
        worker.wait_for("records_deleted")
        code, output = run(env, "doctor", "worker")
        assert (code, f"topic {log} has lost 3 records" in output) == (1, True), output


def test_a_topic_between_two_agents_may_lose_records_after_they_were_folded(
    env: dict[str, str],
) -> None:
    events = names_of(env).events
    with worker_that_folded(env, map(paid, range(40))) as worker:
        for tp, position in positions(env).items():
            if tp.topic == events:
                asyncio.run(delete_records(env, tp, position.end))
        # The worker checks this topic and `ledger.events` in the same round. So when it reports
        # this loss, it has also checked `ledger.events`.
        asyncio.run(delete_records(env, TopicPartition(names_of(env).entries, 1), 1))
        worker.wait_for("records_deleted")
        assert deleted_records(worker) == {names_of(env).entries: 1}
        assert events not in problems(env)["records_deleted"]


def test_status_reports_records_that_a_topic_between_two_agents_loses_before_they_are_folded(
    env: dict[str, str],
) -> None:
    events = names_of(env).events
    with worker_that_folded(env, map(paid, range(40))) as worker:
        worker.stop()
    partition = TopicPartition(events, 1)
    (record, *_) = [each for each in read_topic(env, events) if each.partition == 1]
    end = positions(env)[partition].end
    # The key of the record belongs to this partition.
    write(env, events, [OutRecord(record.key, record.value)])
    asyncio.run(delete_records(env, partition, end + 1))
    detail = problems(env)["records_deleted"]
    assert f"1 records of {events} partition 1 were deleted before they were folded" in detail
    assert "plexy-ledger rebuild" in detail


@pytest.mark.parametrize("topic", ["webhooks", "entries"])
def test_status_and_readiness_report_a_shortened_retention_until_it_is_corrected(
    env: dict[str, str], topic: str
) -> None:
    name = getattr(names_of(env), topic)
    said = f"topic {name} has retention.ms={DAY_MS}, expected -1"
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        asyncio.run(alter(env, name, retention_ms=DAY_MS))
        assert said in worker.wait_for("topic_wrong")["detail"]
        assert said in problems(env)["topic_wrong"]
        asyncio.run(alter(env, name, retention_ms="-1"))
        worker.wait_ready()


def test_a_changelog_that_lost_its_first_records_stops_only_a_worker_that_has_no_tables(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A worker that has the table continues; a rebuild makes a version with complete changelogs."""
    changelog = changelog_name(group_of(env), "payments")
    with worker_that_folded(env, map(paid, range(40))) as worker:
        # Kafka refuses to delete records of a compacted topic, so the policy is changed first.
        asyncio.run(alter(env, changelog, cleanup_policy="delete"))
        for number in range(PARTITIONS):
            asyncio.run(delete_records(env, TopicPartition(changelog, number), 3))
        asyncio.run(alter(env, changelog, cleanup_policy="compact"))
        detail = worker.wait_for("records_deleted")["detail"]
        assert f"topic {changelog} has lost" in detail
        assert "`plexy-ledger rebuild`" in detail
        deliver(env, [paid(40)])
        wait_folded(env, worker)
        assert worker.get("/orders/ord_40")[0] == 200
        worker.stop()
    with WorkerProcess(moved(env, tmp_path / "empty")) as worker:
        reason = worker.reason_of_end(within_s=60)
    assert reason.startswith(f"ChangelogLostError: {changelog}[")
    assert "`plexy-ledger rebuild`" in reason
    code, output = run(env, "verify")
    assert (code, "payment_missing" in output) == (1, True), output
    # The exit code is 1, because version 1 differs from the log.
    code, output = run(env, "rebuild", "--wait", "0")
    compared = "Version 2 was compared with the log of record (payments with unfolded records: 0)"
    said = f"{compared}: No difference"
    assert (code, said in " ".join(output.split())) == (1, True), output
