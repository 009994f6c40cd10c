"""Every command reports a deleted, replaced or extended topic, and creates no topic in its place.

The broker creates a missing topic when a client names it, as Kafka does by default. No ingress and
no worker runs when a topic changes. So only data that is stored in Kafka shows what happened.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ledger.topics import changelog_name
from tests.kafka.harness import (
    PARTITIONS,
    environment,
    group_of,
    names_of,
    read_topic,
    run,
    until,
    worker_that_folded,
)
from tests.kafka.programs import ask_ingress, paid, post, program
from tests.kafka.topics import add_partitions, create, delete, describe

pytestmark = pytest.mark.timeout(300)

# These are the settings of a topic that is kept forever, and of a changelog. Kafka's defaults are
# different.
KEPT = {"retention_ms": "-1", "max_message_bytes": "20000000"}
COMPACTED = {"cleanup_policy": "compact", "max_message_bytes": "20000000"}

# These commands read or check every topic of the ledger.
OF_ALL = (
    "topics",
    "topics --check",
    "doctor",
    "status",
    "verify",
    "worker",
    "rejected retry --all",
)
# These commands read the log, or wait until the workers have folded it.
OF_LOG = ("export-log COPY", "export --format csv", "reconcile SETTLEMENT", "doctor ingest")
# After the log was replaced, this command restores the log only under the next LEDGER_VERSION.
RESTORE = "import-log FILE"
OF_JOURNAL = ("export --format csv", "reconcile SETTLEMENT")


class Ledger(NamedTuple):
    """A ledger that has folded payments, with a copy of its log; none of its programs runs."""

    env: dict[str, str]
    folder: Path

    def outputs(self, commands: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        """Run commands concurrently; return each command's exit code and its output on one line."""

        def one(command: str) -> tuple[int, str]:
            code, output = run(self.env, *(self.paths.get(each, each) for each in command.split()))
            return code, " ".join(output.split())

        with ThreadPoolExecutor(4) as pool:
            return dict(zip(commands, pool.map(one, commands), strict=True))

    @property
    def paths(self) -> dict[str, str]:
        return {name: str(self.folder / name.lower()) for name in ("FILE", "COPY", "SETTLEMENT")}


@pytest.fixture
def empty(usual_kafka: EmbeddedKafka, tmp_path: Path) -> Ledger:
    made = {"allow_unsigned": "true", "answer_within_s": 4}
    ports = {"ingest_port": free_port(), "audit_port": free_port()}
    env = environment(usual_kafka.bootstrap, tmp_path / "ledger", **made, **ports)
    (tmp_path / "settlement").write_text("payment_id,amount,currency,kind\n")
    return Ledger(env, tmp_path)


@pytest.fixture
def ledger(empty: Ledger) -> Ledger:
    with worker_that_folded(empty.env, map(paid, range(20))) as worker:
        worker.stop()
    code, output = run(empty.env, "export-log", empty.paths["FILE"])
    assert code == 0, output
    return empty


def existing(env: Mapping[str, str]) -> set[str]:
    return set(asyncio.run(describe(env)))


def audit_reports(env: Mapping[str, str], said: str) -> bool:
    """Start an audit, and wait until its readiness probe fails with this reason."""

    def reason() -> str:
        url = f"http://127.0.0.1:{env['LEDGER_AUDIT_PORT']}/readyz"
        try:
            answer = httpx.get(url, trust_env=False, timeout=30)
        except httpx.TransportError:
            return ""
        return answer.text if answer.status_code == 503 and said in answer.text else ""

    with program("audit", env) as audit:
        return bool(until(reason, within_s=60, what=f"{said} in {audit.tail()}"))


def test_no_command_except_topics_and_worker_creates_a_topic(empty: Ledger) -> None:
    commands = tuple({*OF_ALL, *OF_LOG} - {"topics", "worker"})
    commands += ("rebuild --wait 0", "rejected list", "rejected show plexy.webhooks/0/0")
    for command, (code, output) in empty.outputs(commands).items():
        assert code == 1, (command, output)
        remedy = "Check LEDGER_TOPIC_PREFIX" if "rebuild" in command else "`plexy-ledger topics`"
        assert remedy in output, (command, output)
    assert audit_reports(empty.env, "missing topics: ")
    with program("ingest", empty.env) as ingress:
        until(
            lambda: ask_ingress(empty.env, "/readyz")[0] == 503,
            within_s=60,
            what=f"503 of ingress: {ingress.tail()}",
        )
        assert post(empty.env, 1).status_code == 503
    assert existing(empty.env) == set()


class Change(NamedTuple):
    """A change of a topic, the commands that report the change, and the text that they print."""

    topic: Callable[[dict[str, str]], str]
    apply: Callable[[dict[str, str], str], None]
    said: str
    commands: tuple[str, ...]


def deleted(env: dict[str, str], topic: str) -> None:
    asyncio.run(delete(env, topic))


def recreated(env: dict[str, str], topic: str) -> None:
    """Delete a topic, and create it again with the right settings."""
    asyncio.run(delete(env, topic))
    settings = COMPACTED if topic.endswith("-changelog") else KEPT
    asyncio.run(create(env, topic, PARTITIONS, **settings))


def extended(env: dict[str, str], topic: str) -> None:
    asyncio.run(add_partitions(env, topic, 2 * PARTITIONS))


def log_of(env: dict[str, str]) -> str:
    return names_of(env).webhooks


def journal_of(env: dict[str, str]) -> str:
    return names_of(env).entries


def table_of(env: dict[str, str]) -> str:
    return changelog_name(group_of(env), "seen")


MISSING = "missing topics: {}."
REPLACED = "topic {} was deleted and created again"
EXTENDED = "topic {} has 8 partitions, but this ledger has 4"
CHANGES = {
    "log deleted": Change(log_of, deleted, MISSING, (*OF_ALL, *OF_LOG, RESTORE)),
    "log recreated": Change(log_of, recreated, REPLACED, OF_ALL + OF_LOG),
    "log extended": Change(log_of, extended, EXTENDED, (*OF_ALL, "doctor ingest", RESTORE)),
    "journal deleted": Change(journal_of, deleted, MISSING, (*OF_ALL, *OF_JOURNAL, RESTORE)),
    "journal recreated": Change(journal_of, recreated, REPLACED, (*OF_ALL, *OF_JOURNAL, RESTORE)),
    "journal extended": Change(journal_of, extended, EXTENDED, (*OF_ALL, RESTORE)),
    "table deleted": Change(table_of, deleted, MISSING, (*OF_ALL, RESTORE)),
    "table recreated": Change(table_of, recreated, REPLACED, (*OF_ALL, RESTORE)),
    "table extended": Change(table_of, extended, EXTENDED, (*OF_ALL, RESTORE)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_command_reports_a_topic_that_was_changed_while_no_program_ran(
    ledger: Ledger, name: str
) -> None:
    env, change = ledger.env, CHANGES[name]
    topic = change.topic(env)
    change.apply(env, topic)
    before, said = existing(env), change.said.format(topic)
    for command, (code, output) in ledger.outputs(change.commands).items():
        assert (code, said in output) == (1, True), (command, output)
    assert audit_reports(env, said)
    problems = json.loads(run(env, "status", "--json")[1])["problems"]
    assert said in problems[0]["detail"], problems
    assert existing(env) == before
    if name == "log extended":
        # The remedy needs the log's records, so `export-log` can still export them.
        code, output = run(env, "export-log", ledger.paths["COPY"])
        assert code == 0, output
    if name == "log recreated":
        code, output = run(env, *RESTORE.replace("FILE", ledger.paths["FILE"]).split())
        assert (code, "the next LEDGER_VERSION" in output) == (1, True), output
    if name.endswith("recreated"):
        assert read_topic(env, topic) == []
