"""When an operator changes topics, the ledger stays right, or every program reports the change.

While programs run, topics are deleted, recreated, and given more partitions and other settings.
The broker creates a missing topic when a client names it, as Kafka does by default.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ledger.topics import IN_SYNC, Topic, TopicNames, changelog_name
from runtime.kafka.batches import OutRecord, send_by_key
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    group_of,
    names_of,
    producer,
    read_topic,
    run,
    state_of,
    until,
    wait_folded,
    worker_that_folded,
)
from tests.kafka.programs import ask_ingress, paid, post, program, wait_ingress, wait_refused
from tests.kafka.topics import add_partitions, alter, create, delete, describe

pytestmark = pytest.mark.timeout(240)

WEEK_MS = str(7 * 24 * 3600 * 1000)
# These settings of a topic that is kept forever are not Kafka's defaults.
RIGHT = {"retention_ms": "-1", "max_message_bytes": "20000000"}
COMMANDS = ("topics", "topics --check", "doctor", "doctor ingest", "status", "worker")


@pytest.fixture
def env(usual_kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    made = environment(
        usual_kafka.bootstrap,
        tmp_path / "ledger",
        allow_unsigned="true",
        ingest_port=free_port(),
        answer_within_s=4,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(made)))
    return made


def test_no_program_recreates_a_deleted_log(env: dict[str, str]) -> None:
    log = names_of(env).webhooks
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        assert post(env, 0).status_code == 200
        wait_folded(env, worker)
        asyncio.run(delete(env, log))
        wait_refused(env, f"missing topics: {log}", "`plexy-ledger import-log`")
        # Until the worker ends, a view that reads the log must not create the topic.
        worker.get("/orders/ord_0/events")
        assert log in worker.reason_of_end(within_s=60)
        for command in ("status", "verify", "worker", "topics", "topics --check"):
            run(env, *command.split())
        run(env, "export-log", Path(env["LEDGER_DATA_DIR"]) / "file")
        assert ask_ingress(env, "/readyz")[0] == 503
    assert log not in asyncio.run(describe(env))


def test_a_log_that_another_program_recreated_is_refused_until_the_log_is_restored(
    env: dict[str, str], tmp_path: Path
) -> None:
    log, file = names_of(env).webhooks, tmp_path / "log"
    with program("ingest", env) as ingress:
        wait_ingress(ingress)
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            assert {post(env, n).status_code for n in range(20)} == {200}
            wait_folded(env, worker)
            code, output = run(env, "export-log", file)
            assert code == 0, output
            asyncio.run(delete(env, log))
            asyncio.run(create(env, log, 1))
            wait_refused(env, log)
            asyncio.run(delete(env, log))
            asyncio.run(create(env, log, PARTITIONS, **RIGHT | {"retention_ms": WEEK_MS}))
            wait_refused(env, log)
            asyncio.run(delete(env, log))
            # Only the topic's id distinguishes this log from the former log.
            asyncio.run(create(env, log, PARTITIONS, **RIGHT))
            said = f"topic {log} was deleted and created again"
            wait_refused(env, said, "`plexy-ledger import-log`")
            assert log in worker.reason_of_end(within_s=60)
        wait_refused(env, said)
        for command in COMMANDS:
            code, output = run(env, *command.split())
            assert (code, said in output) == (1, True), (command, output)
        problems = json.loads(run(env, "status", "--json")[1])["problems"]
        assert "topic_replaced" in {each["code"] for each in problems}
        assert read_topic(env, log) == []
        again = env | {"LEDGER_VERSION": "2", "LEDGER_DATA_DIR": str(tmp_path / "again")}
        code, output = run(again, "import-log", file)
        assert code == 0, output
        wait_ingress(ingress)
        assert {post(env, n).status_code for n in range(10, 30)} == {200}
        with WorkerProcess(again) as worker:
            worker.wait_ready()
            wait_folded(again, worker)
            code, output = run(again, "verify")
            assert code == 0, output
    assert len(read_topic(again, names_of(again).entries)) == 30


def test_a_worker_ends_if_one_of_its_topics_is_recreated(
    env: dict[str, str],
) -> None:
    """When the worker next checks the topic, the topic exists again, with the right settings."""
    entries = names_of(env).entries
    with worker_that_folded(env, map(paid, range(20))) as worker:
        asyncio.run(delete(env, entries))
        asyncio.run(create(env, entries, PARTITIONS, **RIGHT))
        reason = worker.reason_of_end(within_s=60)
    assert f"topic {entries} was deleted and created again" in reason
    assert "`plexy-ledger rebuild`" in reason


# Each right value of a setting is mapped to a wrong value.
WRONG = {"-1": WEEK_MS, "delete": "compact", "CreateTime": "LogAppendTime", "false": "true"}


def changes(names: TopicNames) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a change for each setting of the log that could lose deliveries.

    A change consists of the topic, the setting, a wrong value, the right value, and the text about
    the difference.
    """
    for each in Topic(name=names.webhooks).settings(in_sync=1):
        topic, wrong, said = names.webhooks, WRONG.get(each.value, ""), "{}, expected"
        if each.accepts == "any" or each.refuses_some:
            continue
        if each.name == IN_SYNC:
            # Kafka accepts no value below 1, so this change raises the value that ingress expects.
            yield names.made_with(PARTITIONS), each.name, "2", "1", "1, expected at least 2"
            continue
        if each.accepts == "no less":
            wrong = str(int(each.value) - 1)
        yield topic, each.name, wrong, each.value, said.format(wrong)


def test_ingress_accepts_no_delivery_while_a_setting_of_its_topics_could_lose_deliveries(
    env: dict[str, str],
) -> None:
    names = names_of(env)
    with program("ingest", env) as ingress:
        for topic, setting, wrong, right, said in changes(names):
            wait_ingress(ingress)
            asyncio.run(alter(env, topic, **{setting: wrong}))
            wait_refused(env, f"topic {names.webhooks} has {setting}={said}")
            asyncio.run(alter(env, topic, **{setting: right}))
        wait_ingress(ingress)
        assert post(env, 1).status_code == 200
        for topic, setting, wrong, *_ in changes(names):
            asyncio.run(alter(env, topic, **{setting: wrong}))
        wait_refused(env, names.webhooks)
    of_ingress, of_all = (run(env, *command.split()) for command in ("doctor ingest", "doctor"))
    assert (of_ingress[0], of_all[0]) == (1, 1)
    for _, setting, _, _, said in changes(names):
        assert f"topic {names.webhooks} has {setting}={said}" in of_ingress[1]
        # Other programs than ingress take the expected `min.insync.replicas` from their settings.
        assert setting == IN_SYNC or f"topic {names.webhooks} has {setting}={said}" in of_all[1]
    code, output = run(env | {"LEDGER_MIN_INSYNC_REPLICAS": "1"}, "topics", "--check")
    assert (code, f"topic {names.webhooks} has cleanup.policy=compact" in output) == (1, True)


def test_a_log_is_not_imported_into_a_topic_that_replaces_the_times_of_records(
    env: dict[str, str], tmp_path: Path
) -> None:
    deliver(env, map(paid, range(10)))
    file = tmp_path / "log"
    code, output = run(env, "export-log", file)
    assert code == 0, output
    other = environment(env["LEDGER_KAFKA_BOOTSTRAP"], tmp_path / "other")
    log = names_of(other).webhooks
    asyncio.run(create(other, log, message_timestamp_type="LogAppendTime", **RIGHT))
    code, output = run(other, "import-log", file)
    assert code == 1
    assert f"topic {log} has message.timestamp.type=LogAppendTime, expected CreateTime" in output
    assert "--add-config message.timestamp.type=CreateTime" in output
    assert read_topic(other, log) == []
    asyncio.run(alter(other, log, message_timestamp_type="CreateTime"))
    code, output = run(other, "import-log", file)
    assert code == 0, output


def test_a_worker_logs_a_changed_setting_of_a_topic_and_continues(env: dict[str, str]) -> None:
    entries = names_of(env).entries
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        asyncio.run(alter(env, entries, retention_ms=WEEK_MS))
        said = until(
            lambda: worker.logged("a topic is not as expected"), within_s=60, what="a line"
        )
        assert f"topic {entries} has retention.ms={WEEK_MS}, expected -1" in said[0]["fault"]
        until(lambda: faults_shown(worker) == 1, within_s=30, what="the fault in the metrics")
        deliver(env, [paid(1)])
        wait_folded(env, worker)


def faults_shown(worker: WorkerProcess) -> float:
    """Return the number of topic faults that a worker's metrics show."""
    url = f"http://127.0.0.1:{worker.env['LEDGER_WEB_PORT']}/metrics"
    start = "plexy_ledger_worker_topic_faults "
    lines = httpx.get(url, trust_env=False).text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_every_program_reports_a_log_with_added_partitions_and_appends_nothing_to_it(
    env: dict[str, str],
) -> None:
    log = names_of(env).webhooks
    said = f"topic {log} has 8 partitions, but this ledger has {PARTITIONS}"
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        assert {post(env, n).status_code for n in range(20)} == {200}
        wait_folded(env, worker)
        asyncio.run(add_partitions(env, log, 8))
        wait_refused(env, said)
        assert said in worker.reason_of_end(within_s=60)
        for command in COMMANDS:
            code, output = run(env, *command.split())
            assert (code, said in output) == (1, True), (command, output)
        # A change of LEDGER_PARTITIONS looks like the remedy, but does not help.
        for command in ("topics", "worker", "doctor worker", "status"):
            code, output = run(env | {"LEDGER_PARTITIONS": "8"}, *command.split())
            assert code == 1, (command, output)
            assert f"this ledger has {PARTITIONS} partitions, but LEDGER_PARTITIONS is 8" in output
            assert f"set LEDGER_PARTITIONS={PARTITIONS}" in output
    assert {record.partition for record in read_topic(env, log, 8)} <= set(range(PARTITIONS))


def test_a_worker_ends_if_partitions_are_added_to_topics_derived_from_the_log(
    env: dict[str, str],
) -> None:
    names, changelog = names_of(env), changelog_name(group_of(env), "orders")
    raised = (names.payments, names.entries, changelog)
    with worker_that_folded(env, map(paid, range(20))) as worker:
        for topic in raised:
            asyncio.run(add_partitions(env, topic, 8))
        reason = worker.reason_of_end(within_s=60)
    said = {topic: f"topic {topic} has 8 partitions, but this ledger has 4" for topic in raised}
    assert any(each in reason for each in said.values()), reason
    assert "`plexy-ledger rebuild` makes another version of it" in reason
    problems = json.loads(run(env, "status", "--json")[1])["problems"]
    details = [each["detail"] for each in problems if each["code"] == "partitions_wrong"]
    assert [detail.partition(":")[0] for detail in details] == list(said.values())
    code, output = run(env, "worker")
    assert (code, said[names.payments] in output) == (1, True), output
    code, output = run(env, "rebuild", "--wait", "0")
    assert (code, "To switch to version 2" in output) == (0, True), output


# This worker never checks the topics' settings, but receives new partitions within a second.
TAKES_NEW_PARTITIONS = """
import os
from processors import topology, worker
from processors.settings import WorkerSettings
topology._TOPICS_LOOKED_AT_EVERY_S = 3600
worker.prepare_process()
app = worker.create_app(WorkerSettings.from_environment(os.environ))
app.conf.consumer_metadata_max_age_ms = 500
app.Worker(quiet=True).execute_from_commandline()
"""


def test_a_worker_that_is_assigned_an_added_partition_ends_before_it_folds_the_partition(
    env: dict[str, str],
) -> None:
    names, changelog = names_of(env), changelog_name(group_of(env), "seen")
    with WorkerProcess(env, [sys.executable, "-c", TAKES_NEW_PARTITIONS]) as worker:
        worker.wait_ready()
        deliver(env, map(paid, range(20)))
        wait_folded(env, worker)
        # The group assigns a new partition of the log together with the same partition of the
        # changelog.
        asyncio.run(add_partitions(env, changelog, 8))
        asyncio.run(add_partitions(env, names.webhooks, 8))
        write_by_key(env, names.webhooks, 8, map(paid, range(20, 60)))
        reason = worker.reason_of_end(within_s=60)
    said = f"has 8 partitions, but this ledger has {PARTITIONS}"
    assert said in reason
    assert "`plexy-ledger export-log`" in reason
    assert {record.partition for record in read_topic(env, changelog, 8)} <= set(range(PARTITIONS))


def test_a_new_log_can_replace_a_log_with_added_partitions_and_every_sale_counts_once(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A foreign producer has written to the new partitions; some of its events are repetitions."""
    log = names_of(env).webhooks
    with worker_that_folded(env, map(paid, range(40))) as worker:
        worker.stop()
    asyncio.run(add_partitions(env, log, 8))
    write_by_key(env, log, 8, map(paid, range(20, 60)))
    assert max(record.partition for record in read_topic(env, log, 8)) >= PARTITIONS
    file = tmp_path / "log"
    code, output = run(env, "export-log", file)
    assert (code, "80 in " in output) == (0, True), output
    assert f"records of added partitions ({PARTITIONS} and higher) to the ends" in output
    other = environment(env["LEDGER_KAFKA_BOOTSTRAP"], tmp_path / "other", allow_unsigned="true")
    code, output = run(other, "import-log", file)
    assert code == 0, output
    with WorkerProcess(other) as worker:
        worker.wait_ready()
        wait_folded(other, worker)
        deliver(other, map(paid, range(60)))
        wait_folded(other, worker)
        code, output = run(other, "verify")
        assert code == 0, output
    assert len(read_topic(other, names_of(other).entries)) == 60
    # The records that the old ledger folded have the same places in the new log.
    facts, before = state_of(other)["facts"], state_of(env)["facts"]
    assert {key: facts[key] for key in before} == before
    assert len(before) == 40


def write_by_key(
    env: Mapping[str, str], topic: str, partitions: int, bodies: Iterable[dict[str, object]]
) -> None:
    """Write deliveries to the partitions of their keys in a topic of ``partitions`` partitions."""

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            records = [
                OutRecord(str(body["id"]).encode(), json.dumps(body).encode()) for body in bodies
            ]
            await send_by_key(client, topic, records, partitions)

    asyncio.run(send())


def test_the_start_of_a_worker_records_the_number_of_partitions_if_no_record_exists(
    env: dict[str, str],
) -> None:
    record = names_of(env).made_with(PARTITIONS)
    asyncio.run(delete(env, record))
    with program("ingest", env) as ingress:
        wait_refused(env, "missing topics: ", "plexy.partitions-", "`plexy-ledger topics`")
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            wait_ingress(ingress)
    assert record in asyncio.run(describe(env))


def test_a_number_of_partitions_is_not_recorded_if_the_log_has_added_partitions(
    env: dict[str, str],
) -> None:
    names = names_of(env)
    asyncio.run(delete(env, names.made_with(PARTITIONS)))
    asyncio.run(add_partitions(env, names.webhooks, 8))
    for partitions in ("4", "8"):
        settings = TopicSettings.from_environment(env | {"LEDGER_PARTITIONS": partitions})
        with pytest.raises(TopicsError, match=f"this ledger has {PARTITIONS}"):
            asyncio.run(ensure_topics(settings))
    assert not names.recorded_partitions(asyncio.run(describe(env)))


async def test_two_concurrent_creations_with_different_numbers_of_partitions_do_not_both_succeed(
    usual_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(usual_kafka.bootstrap, tmp_path)
    made = [
        TopicSettings.from_environment(env | {"LEDGER_PARTITIONS": str(count)}) for count in (3, 5)
    ]
    outcomes = await asyncio.gather(*map(ensure_topics, made), return_exceptions=True)
    assert any(isinstance(outcome, TopicsError) for outcome in outcomes), outcomes
