"""`plexy-ledger doctor` finds no fault in a good ledger, and reports each fault with its remedy."""

import asyncio
import json
import re
import resource
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cli.doctor.checks import CheckResult, Level, Patient
from cli.doctor.folders import check_folders
from cli.doctor.kafka import _rules, check_kafka
from cli.kafka.broker import EmbeddedKafka
from cli.settings_table import READ_BY
from faults.disk import can_mount, small_disk
from processors.settings import WorkerSettings
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    free_port,
    group_of,
    names_of,
    run,
    wait_folded,
)
from tests.kafka.topics import alter, delete, describe

pytestmark = pytest.mark.timeout(240)

needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting a small disk requires root")


def settings(kafka: EmbeddedKafka, folder: Path) -> dict[str, str]:
    """Return the settings for all programs of a ledger that was never started."""
    return environment(
        kafka.bootstrap,
        folder,
        webhook_secrets="whsec_of_the_test",
        api_token="token of the test",
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
        audit_port=free_port(),
        kafka_port=free_port(),
    )


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    """Create the topics of a good ledger, and return its settings."""
    good = settings(kafka, tmp_path / "ledger")
    asyncio.run(ensure_topics(TopicSettings.from_environment(good)))
    return good


def doctor(env: Mapping[str, str], *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """Run the doctor; return its exit code, and its findings by level as `check: what → remedy`."""
    code, printed = run(env, "doctor", "--json", *arguments)
    document = json.loads(printed)
    findings: dict[str, list[str]] = {"ok": [], "warning": [], "problem": []}
    for each in document["findings"]:
        findings[each["level"]].append(f"{each['check']}: {each['what']} → {each['remedy']}")
    assert document["problems"] == len(findings["problem"])
    assert document["warnings"] == len(findings["warning"])
    assert code == (1 if findings["problem"] else 0)
    return code, findings


async def groups(env: Mapping[str, str]) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        return {name for name, *_ in await admin.list_consumer_groups()}
    finally:
        await admin.close()


def test_a_good_ledger_has_no_problem_and_no_warning_and_is_left_unchanged(env):
    before = asyncio.run(describe(env))
    code, printed = run(env, "doctor")
    assert code == 0, printed
    assert printed.endswith("No problem, no warning\n")
    for check in ("settings", "versions", "kafka", "topics", "folders", "ports"):
        assert re.search(rf"^ok +{check} ", printed, re.MULTILINE), check
    assert "all 9 topics are as expected" in printed
    assert asyncio.run(describe(env)) == before
    assert group_of(env) not in asyncio.run(groups(env))
    assert not Path(env["LEDGER_DATA_DIR"]).exists()


def test_the_doctor_says_how_to_create_missing_topics_and_creates_none(kafka, tmp_path):
    env = settings(kafka, tmp_path / "ledger")
    _, findings = doctor(env)
    (problem,) = findings["problem"]
    assert problem.startswith("topics: missing topics: ")
    assert names_of(env).webhooks in problem
    assert "create them with `plexy-ledger topics`" in problem
    # `doctor ingest` checks only the topics that ingress writes to, because ingress may have no
    # permission to see other topics.
    _, findings = doctor(env, "ingest")
    (problem,) = findings["problem"]
    assert problem.startswith("topics: missing topics: ")
    assert names_of(env).webhooks in problem
    assert asyncio.run(describe(env)) == {}


def test_a_retention_that_deletes_records_of_the_log_and_a_missing_topic_are_both_reported(env):
    names = names_of(env)
    asyncio.run(alter(env, names.webhooks, retention_ms="604800000"))
    asyncio.run(delete(env, names.orders))
    _, findings = doctor(env)
    assert any(f"missing topics: {names.orders}. " in each for each in findings["problem"])
    (retention,) = [each for each in findings["problem"] if "retention.ms=604800000" in each]
    assert f"topic {names.webhooks} has retention.ms=604800000, expected -1" in retention
    assert f"--alter --topic {names.webhooks} --add-config retention.ms=-1" in retention


def test_a_partition_count_that_contradicts_the_existing_ledger_is_reported(env):
    _, findings = doctor(env | {"LEDGER_PARTITIONS": "5"}, "topics")
    (problem,) = findings["problem"]
    assert "this ledger has 4 partitions, but LEDGER_PARTITIONS is 5" in problem
    assert "set LEDGER_PARTITIONS=4" in problem


def test_more_replicas_than_brokers_are_reported(env):
    _, findings = doctor(env | {"LEDGER_REPLICATION_FACTOR": "3"}, "topics")
    assert findings["problem"][0].startswith(
        "kafka: LEDGER_REPLICATION_FACTOR=3, but Kafka has 1 broker"
    )


def test_a_broker_that_is_down_is_reported_and_all_checks_that_need_no_kafka_are_still_made(env):
    down = f"127.0.0.1:{free_port()}"
    _, findings = doctor(env | {"LEDGER_KAFKA_BOOTSTRAP": down})
    (problem,) = findings["problem"]
    assert problem.startswith(f"kafka: Kafka does not answer at {down} ")
    assert "set LEDGER_KAFKA_BOOTSTRAP to a running Kafka" in problem
    assert any(each.startswith("topics: ") for each in findings["warning"])
    for check in ("settings", "versions", "folders", "ports"):
        assert any(each.startswith(f"{check}: ") for each in findings["ok"])
    both = f"{env['LEDGER_KAFKA_BOOTSTRAP']},{down}"
    code, findings = doctor(env | {"LEDGER_KAFKA_BOOTSTRAP": both})
    assert code == 0
    (warning,) = findings["warning"]
    assert f"{down}, of LEDGER_KAFKA_BOOTSTRAP, does not answer" in warning


async def test_a_broker_that_goes_down_before_the_doctor_reads_the_workers_group_is_reported(env):
    down = f"127.0.0.1:{free_port()}"
    settings = WorkerSettings.from_environment(env | {"LEDGER_KAFKA_BOOTSTRAP": down})
    (found,) = await _rules(settings)
    assert found.level is Level.PROBLEM
    assert found.what.startswith(f"Kafka does not answer at {down} ")
    assert "set LEDGER_KAFKA_BOOTSTRAP" in found.remedy


def test_a_folder_of_a_running_worker_is_reported_and_the_worker_continues(env):
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        assert worker.process
        # A second worker with its own port but the same folder has exactly one problem.
        second = env | {"LEDGER_WEB_PORT": str(free_port())}
        _, findings = doctor(second)
        (problem,) = findings["problem"]
        assert problem.startswith(f"folders: LEDGER_DATA_DIR={env['LEDGER_DATA_DIR']} belongs to")
        assert f"(pid {worker.process.pid})" in problem
        assert "give this worker a different folder" in problem
        # With the settings of the running worker itself, the doctor finds no problem.
        code, findings = doctor(env)
        assert code == 0
        ports, folders = sorted(findings["warning"], reverse=True)
        assert ports.startswith("ports: worker can't listen on ")
        assert f"(pid {worker.process.pid}) has it" in ports
        assert folders.startswith("folders: ")
        deliver(env, [event(1, merchantReference="ord_1")])
        wait_folded(env, worker)
    _, findings = doctor(env)
    assert findings["problem"] == findings["warning"] == []


def test_tables_of_a_different_kafka_are_reported(env):
    foreign = Path(env["LEDGER_DATA_DIR"]) / "tables" / "v1" / f"{group_of(env)}@another-cluster"
    foreign.mkdir(parents=True)
    code, findings = doctor(env, "worker")
    assert code == 0
    (warning,) = findings["warning"]
    assert (
        f"folders: {foreign} has 0.0 MiB of tables of the Kafka cluster another-cluster" in warning
    )


@needs_mount
def test_a_folder_that_is_too_full_is_reported(kafka, tmp_path):
    with small_disk(tmp_path / "disk", 96) as disk:
        env = settings(kafka, disk.folder)
        asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
        disk.fill()
        _, findings = doctor(env)
        (problem,) = findings["problem"]
        assert problem.startswith(f"folders: LEDGER_DATA_DIR={disk.folder} has 0.0 MiB free")
        assert "make room there" in problem


def test_more_partitions_than_the_limit_on_open_files_allows_are_reported(env, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    found = list(check_folders(Patient(env, ("worker",))))
    (problem,) = [each for each in found if each.level is Level.PROBLEM]
    assert problem.what.startswith("this process may open 300 files, and 12 databases")
    assert problem.remedy.startswith("raise the limit on open files (`ulimit -n`")


def look_at_kafka(env: Mapping[str, str]) -> list[CheckResult]:
    return list(check_kafka(Patient(env, tuple(READ_BY))))


def test_the_brokers_clock_is_read_and_a_wrong_local_clock_is_reported(env, monkeypatch):
    (seen,) = [each for each in look_at_kafka(env) if "clock" in each.what]
    # The broker runs on this machine, so the broker and the doctor read the same clock.
    assert seen.level is Level.OK
    apart_s = re.search(r"clock is ([\d.]+) s", seen.what)
    assert apart_s
    assert float(apart_s[1]) < 10
    now = time.time
    monkeypatch.setattr("cli.doctor.clock.time.time", lambda: now() + 1000)
    (seen,) = [each for each in look_at_kafka(env) if "clock" in each.what]
    assert seen.level is Level.PROBLEM
    assert re.match(r"the brokers' clock is (1000|99\d)\.\d s .* behind ours, more than", seen.what)
    assert "NTP" in seen.remedy
