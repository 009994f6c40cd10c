"""The ledger creates missing topics with the right settings; wrong settings are an error.

The number of partitions must never change, and a retention that is too short deletes records of the
log. So the ledger checks existing topics, but never changes them.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import (
    _EVERY_TOPIC,
    MAX_RECORD_BYTES,
    TABLES,
    TopicSetting,
    changelog_name,
)
from runtime.kafka import topic_metadata
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topic_metadata import read_topics
from runtime.kafka.topic_states import read_configs
from runtime.kafka.topics import TopicSettings, ensure_topics, examine_topics, record_log
from runtime.settings import SettingsError
from tests.kafka.harness import (
    WORKER,
    WorkerProcess,
    commit,
    environment,
    free_port,
    group_of,
    names_of,
    until,
)
from tests.kafka.programs import FAUST
from tests.kafka.topics import create, delete, describe, ids_of

pytestmark = pytest.mark.timeout(240)

WEEK_MS = str(7 * 24 * 3600 * 1000)
FOREVER = "-1"
LARGE_RECORDS = {"max_message_bytes": "20000000"}


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "ledger")


def settings(env: Mapping[str, str], **changes: object) -> TopicSettings:
    """Return the settings of an environment, with changes."""
    changed = {f"LEDGER_{name.upper()}": str(value) for name, value in changes.items()}
    return TopicSettings.from_environment({**env, **changed})


def needed(env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the promised clean-up policy and retention of each topic."""
    names, group = names_of(env), group_of(env)
    return {
        record_of(env): ("delete", FOREVER),
        names.webhooks: ("delete", FOREVER),
        names.rejected: ("delete", FOREVER),
        names.events: ("delete", WEEK_MS),
        names.payments: ("delete", WEEK_MS),
        names.entries: ("delete", FOREVER),
        names.orders: ("compact", FOREVER),
        **{changelog_name(group, table): ("compact", FOREVER) for table in TABLES},
    }


async def log_record_of(env: Mapping[str, str]) -> str:
    """Return the name of the topic that records the id of the log."""
    (log_id,) = await ids_of(env, names_of(env).webhooks)
    return names_of(env).log_record(log_id)


async def topics_record_of(env: Mapping[str, str], version: int = 1) -> str:
    """Return the name of the topic that records the ids of a version's topics."""
    made = settings(env, version=version)
    ids = await ids_of(env, *(topic.name for topic in made.topics[1:]))
    return made.names.topics_record(ids)


async def everything(env: Mapping[str, str]) -> set[str]:
    """Return the names of all topics that a ledger has."""
    return {*needed(env), *await records_of_ids(env)}


async def records_of_ids(env: Mapping[str, str]) -> list[str]:
    """Return the names of the topics that record ids, in the order of their creation."""
    return [await log_record_of(env), await topics_record_of(env)]


def record_of(env: Mapping[str, str]) -> str:
    """Return the name of the topic that records the number of partitions."""
    return names_of(env).made_with(int(env["LEDGER_PARTITIONS"]))


def topics_command(env: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "topics", *arguments],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its exit code and its output."""
    with command:
        try:
            out, err = command.communicate(timeout=90)
        finally:
            command.kill()
    return command.returncode, out, err


async def test_every_topic_is_created_as_the_ledger_needs_it(env):
    env["LEDGER_PARTITIONS"] = "3"
    report = await ensure_topics(settings(env))
    topics = await describe(env)
    assert set(report.created) == set(topics) == await everything(env)
    assert report.found == []
    for name, (cleanup_policy, retention_ms) in needed(env).items():
        topic = topics[name]
        assert topic["partitions"] == "3"
        assert (topic["cleanup.policy"], topic["retention.ms"]) == (cleanup_policy, retention_ms)
        assert topic["min.insync.replicas"] == "1"
        assert topic["retention.bytes"] == FOREVER
        assert topic["max.message.bytes"] == str(MAX_RECORD_BYTES)
        assert topic["message.timestamp.type"] == "CreateTime"
        assert topic["unclean.leader.election.enable"] == "false"


async def test_the_second_call_finds_the_topics_that_the_first_call_created(env):
    first = await ensure_topics(settings(env))
    before = await describe(env)
    for create_missing in (True, False):
        second = await ensure_topics(settings(env), create=create_missing)
        assert (second.created, second.found) == ([], first.created[:-2])
    assert await describe(env) == before


async def test_only_missing_topics_are_created(env):
    names = names_of(env)
    await create(env, names.webhooks, max_message_bytes="20000000", retention_ms="-1")
    report = await ensure_topics(settings(env))
    assert report.found == [names.webhooks]
    assert set(report.created) == await everything(env) - {names.webhooks}


async def test_a_check_names_the_missing_topics_and_creates_none(env):
    names = names_of(env)
    await create(env, names.webhooks, cleanup_policy="delete", retention_ms="-1")
    with pytest.raises(TopicsError, match=r"^missing topics: .*`plexy-ledger topics`") as caught:
        await ensure_topics(settings(env), create=False)
    for name in needed(env):
        assert (name in str(caught.value)) == (name != names.webhooks)
    assert set(await describe(env)) == {names.webhooks}


@pytest.mark.parametrize("partitions", [2, 5])
async def test_the_error_for_a_wrong_number_of_partitions_names_the_setting(env, partitions):
    name = names_of(env).events
    await create(env, name, partitions, cleanup_policy="delete", retention_ms=WEEK_MS)
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings(env))
    assert str(caught.value) == (
        f"this ledger has {partitions} partitions, but LEDGER_PARTITIONS is 4: "
        f"set LEDGER_PARTITIONS={partitions}"
    )
    assert set(await describe(env)) == {name}


@pytest.mark.parametrize(
    ("topic", "config", "remedy"),
    [
        ("plexy.webhooks", {"retention_ms": "604800000"}, "retention.ms=-1"),
        ("plexy.rejected", {"retention_ms": "1000"}, "retention.ms=-1"),
        ("plexy.webhooks", {"cleanup_policy": "compact", "retention_ms": "-1"}, "=delete"),
        ("ledger.orders", {"retention_ms": "-1"}, "cleanup.policy=compact"),
        ("ledger.events", {"retention_ms": "-1"}, f"retention.ms={WEEK_MS}"),
        ("plexy.webhooks", {"retention_ms": "-1", "retention_bytes": "1000000"}, "bytes=-1"),
        ("plexy.webhooks", {"retention_ms": "-1", "max_message_bytes": "1048588"}, "=10485760"),
        (
            "plexy.webhooks",
            {"retention_ms": "-1", "message_timestamp_type": "LogAppendTime", **LARGE_RECORDS},
            "message.timestamp.type=CreateTime",
        ),
        (
            "ledger.events",
            {"retention_ms": WEEK_MS, "message_timestamp_before_max_ms": "1000", **LARGE_RECORDS},
            "message.timestamp.before.max.ms=9223372036854775807",
        ),
        (
            "ledger.entries",
            {"retention_ms": "-1", "unclean_leader_election_enable": "true", **LARGE_RECORDS},
            "unclean.leader.election.enable=false",
        ),
        (
            "ledger.orders",
            {"retention_ms": "-1", "cleanup_policy": "compact", "delete_retention_ms": "1000"},
            "delete.retention.ms=86400000",
        ),
    ],
)
async def test_the_error_for_a_topic_with_a_wrong_setting_names_the_remedy(
    env, topic, config, remedy
):
    name = env["LEDGER_TOPIC_PREFIX"] + topic
    await create(env, name, **config)
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings(env))
    assert str(caught.value).startswith(f"topic {name} has ")
    assert f"kafka-configs.sh --alter --topic {name} --add-config" in str(caught.value)
    assert remedy in str(caught.value)
    got = (await describe(env))[name]
    assert got["retention.ms"] == config["retention_ms"]


async def test_default_settings_and_larger_limits_than_needed_are_accepted(env):
    """A topic of an earlier release lacks the settings that were not checked at that time."""
    await create(env, names_of(env).webhooks, retention_ms="-1", max_message_bytes="20000000")
    changes = {"compression_type": "zstd", "delete_retention_ms": "172800000"}
    orders = names_of(env).orders
    await create(
        env,
        orders,
        cleanup_policy="compact",
        retention_ms="-1",
        max_message_bytes="20000000",
        **changes,
    )
    report = await ensure_topics(settings(env))
    assert report.found == [names_of(env).webhooks, orders]


async def test_a_broker_that_does_not_know_the_newest_settings_gets_topics_without_them(
    env, monkeypatch
):
    """Brokers older than Kafka 3.6 refuse a topic with settings that were new in Kafka 3.6."""
    unknown = TopicSetting(name="no.such.setting", value="1", why="", newer=True)
    monkeypatch.setattr("ledger.topics._EVERY_TOPIC", (*_EVERY_TOPIC, unknown))
    report = await ensure_topics(settings(env))
    assert set(report.created) == await everything(env)
    assert (await describe(env))[names_of(env).webhooks]["message.timestamp.type"] == "CreateTime"


async def test_the_error_for_too_few_replicas_names_the_setting(env):
    await ensure_topics(settings(env))
    with pytest.raises(TopicsError, match=r"expected 2: add .*LEDGER_REPLICATION_FACTOR=1"):
        await ensure_topics(settings(env, replication_factor=2))


async def test_a_minimum_of_replicas_in_sync_above_the_number_of_replicas_is_refused(env):
    with pytest.raises(SettingsError, match="LEDGER_MIN_INSYNC_REPLICAS=2 is more than"):
        settings(env, min_insync_replicas=2)


async def test_a_lost_topic_is_not_replaced_by_an_empty_topic(env):
    """With an empty topic, workers would serve an incomplete state; a new version is complete."""
    await ensure_topics(settings(env))
    lost = changelog_name(group_of(env), "orders")
    await commit(env, TopicPartition(names_of(env).webhooks, 0), 5)
    await delete(env, lost)
    with pytest.raises(TopicsError, match=rf"missing topics: {lost}\. .*plexy-ledger rebuild"):
        await ensure_topics(settings(env))
    assert lost not in await describe(env)
    # A new version has its own topics, and the log that it needs exists.
    again = await ensure_topics(settings(env, version=2))
    names = names_of(env)
    assert again.found == [record_of(env), names.webhooks, names.rejected]
    assert len(again.created) == 4 + len(TABLES) + 1
    assert again.created[-1] == await topics_record_of(env, version=2)


async def test_a_lost_log_is_not_replaced_by_an_empty_log_even_for_a_new_version(env):
    await ensure_topics(settings(env))
    lost = names_of(env).webhooks
    await commit(env, TopicPartition(names_of(env).events, 0), 5)
    await delete(env, lost)
    for version in (1, 2, 7):
        with pytest.raises(TopicsError, match=rf"missing topics: {lost}\. .*from a backup"):
            await ensure_topics(settings(env, version=version))
    assert lost not in await describe(env)
    # An import may create the log, but only for a version that has folded nothing yet.
    with pytest.raises(TopicsError, match=f"missing topics: {lost}"):
        await ensure_topics(settings(env), restores_log=True)
    assert lost in (await ensure_topics(settings(env, version=2), restores_log=True)).created


async def test_a_log_that_is_lost_before_any_worker_has_folded_it_is_not_replaced(env):
    """Only the topic that records the log's id shows that the log existed."""
    created = (await ensure_topics(settings(env))).created
    names = names_of(env)
    record = await log_record_of(env)
    assert created[-2:] == [record, await topics_record_of(env)]
    await delete(env, names.webhooks)
    for create_missing in (True, False):
        with pytest.raises(TopicsError, match=f"missing topics: {names.webhooks}. {record} has"):
            await ensure_topics(settings(env), create=create_missing)
    assert names.webhooks not in await describe(env)
    # The program that restores a log records the new log's id when the new log is complete.
    await ensure_topics(settings(env), restores_log=True)
    with pytest.raises(TopicsError, match=f"topic {names.webhooks} was deleted and created again"):
        await ensure_topics(settings(env))
    await record_log(settings(env))
    assert (await ensure_topics(settings(env))).created == []
    assert {record, await log_record_of(env)} <= set(await describe(env))


DERIVED = ("plexy.rejected", "ledger.events", "ledger.payments", "ledger.entries", "ledger.orders")


@pytest.mark.parametrize("topic", [*DERIVED, "plexy-ledger-seen-changelog"])
async def test_a_topic_that_was_recreated_with_the_same_settings_is_refused_until_a_rebuild(
    env, topic
):
    """Only the topic's id shows that its records are gone."""
    await ensure_topics(settings(env))
    name, record = env["LEDGER_TOPIC_PREFIX"] + topic, await topics_record_of(env)
    (wanted,) = [each for each in settings(env).topics if each.name == name]
    await delete(env, name)
    for create_missing in (True, False):
        with pytest.raises(TopicsError, match=rf"^missing topics: {name}\. {record} has recorded"):
            await ensure_topics(settings(env), create=create_missing)
    await create(env, name, **wanted.config())
    for create_missing in (True, False):
        with pytest.raises(TopicsError) as caught:
            await ensure_topics(settings(env), create=create_missing)
        assert str(caught.value).startswith(f"topic {name} was deleted and created again: its id ")
        assert f"{record} has recorded a different id" in str(caught.value)
        assert "`plexy-ledger rebuild`" in str(caught.value)
    seen = await examine_topics(settings(env))
    assert [code for code, _ in seen.by_code()] == ["topic_replaced"]
    await ensure_topics(settings(env, version=2))
    assert (await examine_topics(settings(env, version=2))).fatal == ()


@pytest.mark.parametrize("committed", [False, True])
async def test_an_upgrade_records_the_ids_of_the_topics_that_it_finds(env, committed):
    """An earlier release did not record the ids of its topics, and may have committed nothing."""
    await ensure_topics(settings(env))
    record = await topics_record_of(env)
    await delete(env, record)
    if committed:
        await commit(env, TopicPartition(names_of(env).webhooks, 0), 5)
    assert (await ensure_topics(settings(env))).created == [record]
    assert (await ensure_topics(settings(env), create=False)).created == []


async def test_more_replicas_than_brokers_are_refused_and_no_topic_is_created(env):
    with pytest.raises(TopicsError) as caught:
        await ensure_topics(settings(env, replication_factor=3))
    assert f"topic {record_of(env)} can't be created" in str(caught.value)
    assert "LEDGER_REPLICATION_FACTOR" in str(caught.value)
    assert await describe(env) == {}
    await ensure_topics(settings(env))


async def test_an_unreachable_kafka_is_an_error_in_bounded_time(env):
    began = time.monotonic()
    with pytest.raises(TopicsError, match=r"Kafka does not answer at 127\.0\.0\.1:1 ") as caught:
        await ensure_topics(settings(env, kafka_bootstrap="127.0.0.1:1"))
    assert "LEDGER_KAFKA_BOOTSTRAP" in str(caught.value)
    assert time.monotonic() - began < 20


async def test_a_kafka_that_accepts_connections_but_never_answers_is_an_error_in_bounded_time(env):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        async with asyncio.timeout(45):
            with pytest.raises(TopicsError, match=f"Kafka does not answer at {address}"):
                await ensure_topics(settings(env, kafka_bootstrap=address))


async def test_concurrent_creations_share_the_work(env):
    reports = await asyncio.gather(*(ensure_topics(settings(env)) for _ in range(4)))
    for report in reports:
        assert set(report.created) | set(report.found) >= set(needed(env))
    assert set(await describe(env)) == await everything(env)


def test_two_processes_that_create_topics_at_the_same_time_both_succeed(env):
    commands = [topics_command(env), topics_command(env)]
    for code, out, err in [outcome(command) for command in commands]:
        assert (code, err) == (0, "")
        assert {line.split()[1] for line in out.splitlines()} >= set(needed(env))


def test_the_command_topics_creates_and_checks_topics_and_its_exit_code_reports_faults(env):
    code, out, err = outcome(topics_command(env, "--check"))
    assert (code, out) == (1, "")
    assert err.startswith("plexy-ledger: missing topics: ")
    code, out, err = outcome(topics_command(env))
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {"created"}
    code, out, err = outcome(topics_command(env, "--check"))
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {"found"}
    code, out, err = outcome(topics_command(env | {"LEDGER_PARTITIONS": "5"}, "--check"))
    assert (code, out) == (1, "")
    assert err.startswith("plexy-ledger: this ledger ")
    assert "has 4 partitions, but LEDGER_PARTITIONS is 5: set LEDGER_PARTITIONS=4" in err
    assert len(err.splitlines()) == 1
    code, out, err = outcome(topics_command(env | {"LEDGER_PARTITIONS": "none"}, "--check"))
    assert (code, out) == (2, "")
    assert "LEDGER_PARTITIONS" in err
    nowhere = {"LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}"}
    code, out, err = outcome(topics_command(env | nowhere, "--check"))
    assert (code, out) == (1, "")
    assert err.startswith("plexy-ledger: Kafka does not answer at ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", [WORKER, FAUST], ids=["plexy-ledger worker", "faust worker"])
def test_a_worker_whose_topic_is_wrong_ends_with_the_reason(env, command):
    name = names_of(env).webhooks
    asyncio.run(create(env, name, 2, cleanup_policy="delete", retention_ms="-1"))
    with WorkerProcess(env, command) as worker:
        assert worker.process
        code = until_ended(worker)
        output = worker.log_file.read_text()
    assert code != 0
    reason = "this ledger has 2 partitions, but LEDGER_PARTITIONS is 4: set LEDGER_PARTITIONS=2"
    assert reason in output
    if command is WORKER:
        assert len(output.splitlines()) == 1


def until_ended(worker: WorkerProcess, within_s: float = 60) -> int:
    """Wait for the worker's end and return its exit code; fail if the worker becomes ready."""

    def ended() -> bool:
        assert worker.process
        assert worker.get("/readyz")[0] != 200
        return worker.process.poll() is not None

    until(ended, within_s=within_s, what=f"the worker's end:\n{worker.tail()}")
    return worker.wait(1)


def test_a_broker_that_does_not_know_the_new_topics_yet_is_asked_again(env, monkeypatch):
    """Any broker of a cluster may be in this state for a moment.

    If a client asks for the settings of a topic that a broker does not know, the broker answers as
    it does in this test.
    """
    late = {"topics": 2, "configs": 2}

    async def late_topics(client):
        late["topics"] -= 1
        return await read_topics(client) if late["topics"] < 0 else {}

    async def late_configs(client, names):
        late["configs"] -= 1
        unknown = [name if late["configs"] < 0 else f"{name}.unknown" for name in names]
        return await read_configs(client, unknown)

    asyncio.run(create(env, names_of(env).webhooks, retention_ms="-1", **LARGE_RECORDS))
    monkeypatch.setattr("runtime.kafka.topic_looks.read_topics", late_topics)
    monkeypatch.setattr("runtime.kafka.topic_looks.read_configs", late_configs)
    report = asyncio.run(ensure_topics(settings(env)))
    assert set(report.created) == asyncio.run(everything(env))
    assert max(late.values()) < 0


async def test_in_a_kafka_that_has_no_topic_ids_the_ledger_records_ids_only_after_an_upgrade(
    env, monkeypatch
):
    """Brokers before Kafka 2.8 know only the older versions of the request."""
    versions = topic_metadata._TopicsRequest._CLASSES
    older = tuple(each for each in versions if each.API_VERSION < 10)
    monkeypatch.setattr(topic_metadata._TopicsRequest, "_CLASSES", older)
    report = await ensure_topics(settings(env))
    assert set(report.created) == set(await describe(env)) == set(needed(env))
    # An upgrade of the cluster gives an id to each of its topics.
    monkeypatch.undo()
    seen = await examine_topics(settings(env))
    assert (seen.replaced, [*seen.unrecorded]) == ({}, await records_of_ids(env))
    assert (await ensure_topics(settings(env))).created == await records_of_ids(env)
