"""Every program reports a topic setting that was altered, with the expected value and the remedy.

A table in `ledger/topics.py` lists the settings. The table also says which settings may have any
value, and which wrong settings make a broker refuse only some records.
"""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import IN_SYNC, Topic, TopicSetting, all_topics
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    free_port,
    names_of,
    run,
    until,
)
from tests.kafka.programs import ask_ingress, program, wait_ingress
from tests.kafka.topics import alter

pytestmark = pytest.mark.timeout(300)

COMMANDS = ("topics --check", "doctor", "status", "worker")
# There are three kinds of topics. For each kind, this tuple has the end of one topic's name.
KINDS = ("plexy.webhooks", "ledger.events", "orders-changelog")
# Each expected value is mapped to a wrong value.
WRONG = {"-1": "604800000", "604800000": "-1", "delete": "compact", "compact": "delete"}
WRONG |= {"CreateTime": "LogAppendTime", "false": "true", "producer": "gzip"}


def expected() -> Iterator[tuple[str, TopicSetting]]:
    """Yield each setting with a kind of topic that has it, but yield no setting twice."""
    settings = TopicSettings()
    seen = set()
    for topic in all_topics(settings.names, settings.group_id):
        for setting in topic.settings(in_sync=1):
            kinds = [kind for kind in KINDS if topic.name.endswith(kind)]
            if kinds and setting.name != IN_SYNC and setting not in seen:
                seen.add(setting)
                yield kinds[0], setting


CASES = list(expected())


class Running(NamedTuple):
    """A ledger with a running worker and a running ingress."""

    env: dict[str, str]
    worker: WorkerProcess
    ingress: WorkerProcess

    def topic(self, kind: str) -> Topic:
        settings = TopicSettings.from_environment(self.env)
        (found,) = (each for each in settings.topics if each.name.endswith(kind))
        return found


@pytest.fixture(scope="module")
def running(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    env = environment(kafka.bootstrap, folder, allow_unsigned="true", ingest_port=free_port())
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    with WorkerProcess(env) as worker, program("ingest", env) as ingress:
        worker.wait_ready(90)
        wait_ingress(ingress)
        yield Running(env, worker, ingress)


def outputs(env: Mapping[str, str], commands: tuple[str, ...]) -> dict[str, str]:
    """Run commands at the same time; return each command's output, with its line breaks removed."""

    def printed_by(command: str) -> str:
        return " ".join(run(env, *command.split())[1].split())

    with ThreadPoolExecutor() as pool:
        return dict(zip(commands, pool.map(printed_by, commands), strict=True))


@contextmanager
def altered(
    env: Mapping[str, str], topic: str, name: str, wrong: str, right: str
) -> Iterator[None]:
    """Give a topic a wrong setting during the ``with`` block."""
    asyncio.run(alter(env, topic, **{name: wrong}))
    try:
        yield
    finally:
        asyncio.run(alter(env, topic, **{name: right}))


def logged(process: WorkerProcess, said: str) -> list[str]:
    lines = [*process.logged("a topic is not as expected"), *process.logged("log_unavailable")]
    texts = [line.get("fault") or line["reason"] for line in lines]
    return [text for text in texts if said in text]


@pytest.mark.parametrize(
    ("kind", "setting"), CASES, ids=[f"{kind} {setting.name}" for kind, setting in CASES]
)
def test_every_program_reports_an_altered_setting_with_the_expected_value_and_the_remedy(
    running: Running, tmp_path: Path, kind: str, setting: TopicSetting
) -> None:
    env, topic = running.env, running.topic(kind).name
    wrong = WRONG.get(setting.value) or str(int(setting.value) - 1)
    with altered(env, topic, setting.name, wrong, setting.value):
        if setting.accepts == "any":
            for command, printed in outputs(env, COMMANDS[:3]).items():
                assert setting.name not in printed, command
        else:
            started = {"LEDGER_DATA_DIR": str(tmp_path), "LEDGER_INGEST_PORT": str(free_port())}
            with program("ingest", env | started) as starting:
                assert_reported(running, starting, topic, setting, wrong)
    wait_ingress(running.ingress)


def assert_reported(
    running: Running, starting: WorkerProcess, topic: str, setting: TopicSetting, wrong: str
) -> None:
    """Check what the commands print, and what running and starting programs log."""
    env, is_of_ingress = running.env, topic == names_of(running.env).webhooks
    least = "at least " if setting.accepts == "no less" else ""
    said = f"topic {topic} has {setting.name}={wrong}, expected {least}{setting.value}"
    remedy = f"--alter --topic {topic} --add-config {setting.name}={setting.value}"
    others = ("doctor ingest",) if is_of_ingress else ()
    for command, printed in outputs(env, COMMANDS + others).items():
        assert said in printed, (command, printed)
        assert remedy in printed, (command, printed)
    for process in (running.worker, *((running.ingress, starting) if is_of_ingress else ())):
        (text, *_) = until(
            lambda process=process: logged(process, said), within_s=60, what=process.tail
        )
        assert remedy in text
    # If a wrong setting makes a broker refuse only some records, every program stays ready.
    is_ready = not is_of_ingress or setting.refuses_some
    assert (ask_ingress(env, "/readyz")[0] == 200) == is_ready
    status, problem = running.worker.get("/readyz")
    assert (status == 200) == setting.refuses_some, problem


def test_every_program_reports_that_too_few_replicas_must_be_in_sync(running: Running) -> None:
    """Kafka refuses a value below 1, so this test raises the value that the ledger expects."""
    env, log = running.env, names_of(running.env).webhooks
    said = f"topic {log} has {IN_SYNC}=1, expected at least 2"
    with altered(env, names_of(env).made_with(PARTITIONS), IN_SYNC, "2", "1"):
        until(lambda: logged(running.ingress, said), within_s=60, what=running.ingress.tail)
        assert said in outputs(env, ("doctor ingest",))["doctor ingest"]
    two = {"LEDGER_REPLICATION_FACTOR": "2", "LEDGER_MIN_INSYNC_REPLICAS": "2"}
    for command, printed in outputs(env | two, ("doctor", "status")).items():
        assert said in printed, (command, printed)
