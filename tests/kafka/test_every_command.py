"""Every command and every program reports changed or deleted topics, and none creates them again.

The broker creates missing topics by itself, which is Kafka's default.
"""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.process import free_port
from ledger.topics import Topic
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    names_of,
    run,
    until,
    wait_folded,
)
from tests.kafka.programs import (
    AuditProcess,
    ask_ingress,
    post,
    program,
    start_piped,
    wait_ingress,
    wait_refused,
)
from tests.kafka.topics import add_partitions, create, delete, describe

pytestmark = pytest.mark.timeout(420)

SEND = "send --payment pay_99 --order ord_99 --amount 5"
# These commands judge all topics before they do anything. FILE is an exported log.
JUDGING = (
    "topics --check",
    "topics",
    "doctor",
    "status",
    "worker",
    "verify",
    "rebuild",
    "import-log FILE",
    "rejected retry --all",
)
# These commands read only topics that still have their records.
READING = ("export-log NEW", "rejected list", "export --format csv", "prove PROOF", "version")


class Programs(NamedTuple):
    """The programs of one ledger, and a folder with an exported log and an order's proof."""

    env: dict[str, str]
    folder: Path
    ingress: WorkerProcess
    worker: WorkerProcess
    audit: AuditProcess

    def run(self, command: str) -> tuple[int, str]:
        """Run a command on the ledger; return its exit code and its output in one line."""
        files = {name: str(self.folder / name) for name in ("FILE", "NEW", "PROOF")}
        code, output = run(self.env, *(files.get(each, each) for each in command.split()))
        return code, " ".join(output.split())


@contextmanager
def running(kafka: EmbeddedKafka, folder: Path) -> Iterator[Programs]:
    """Run ingress, a worker and an audit of a ledger that has folded twenty deliveries."""
    env = environment(
        kafka.bootstrap,
        folder / "ledger",
        allow_unsigned="true",
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
        answer_within_s=4,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        assert {post(env, n).status_code for n in range(20)} == {200}
        wait_folded(env, worker)
        (folder / "PROOF").write_text(json.dumps(worker.get("/orders/ord_1/proof")[1]))
        with AuditProcess(env, folder / "audit") as audit:
            audit.wait_ready()
            programs = Programs(env, folder, ingress, worker, audit)
            code, output = programs.run("export-log FILE")
            assert code == 0, output
            yield programs


REFUSED = 'deliveries_total{outcome="log_unavailable"}'
FAULTS = 'topic_faults{process="0"}'


def shown(env: dict[str, str], name: str) -> float:
    """Return a number in the metrics of ingress."""
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_METRICS_PORT']}/metrics"
    start = f"plexy_ledger_ingress_{name} "
    lines = httpx.get(url, trust_env=False).text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_every_command_and_program_reports_partitions_that_were_added_to_the_log(
    usual_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with running(usual_kafka, tmp_path) as ledger:
        log = names_of(ledger.env).webhooks
        said = f"topic {log} has 8 partitions, and this ledger has {PARTITIONS}"
        asyncio.run(add_partitions(ledger.env, log, 8))
        wait_refused(ledger.env, said)
        assert said in ledger.audit.wait_for("cannot_audit")["detail"]
        assert said in ledger.worker.reason_of_end(within_s=60)
        for command in (*JUDGING, "doctor ingest", SEND):
            code, output = ledger.run(command)
            assert (code, said in output) == (1, True), (command, output)
        for command in READING:
            code, output = ledger.run(command)
            assert code == 0, (command, output)
        until(lambda: shown(ledger.env, FAULTS) == 1, within_s=30, what="the fault in the metrics")
        before = shown(ledger.env, REFUSED)
        with start_piped(ledger.env, "simulate", "--events", 5) as simulating:
            until(lambda: shown(ledger.env, REFUSED) > before, within_s=60, what="a delivery")
            simulating.send_signal(signal.SIGINT)
            output, _ = simulating.communicate(timeout=60)
        assert simulating.returncode != 0
        assert "owed" in output


def test_every_program_reports_a_derived_topic_that_was_recreated_while_none_ran(
    usual_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """The topic has the right settings, so that only its id shows that its records are gone."""
    with running(usual_kafka, tmp_path) as ledger:
        ledger.audit.stop()
        ledger.worker.stop()
        entries = names_of(ledger.env).entries
        asyncio.run(delete(ledger.env, entries))
        asyncio.run(create(ledger.env, entries, **Topic(name=entries).config()))
        said = f"topic {entries} was deleted and created again"
        for command in ("topics --check", "topics", "doctor", "status", "worker", "verify"):
            code, output = ledger.run(command)
            assert (code, said in output) == (1, True), (command, output)
            assert "`plexy-ledger rebuild`" in output
        ledger.audit.start()
        assert said in ledger.audit.wait_for("cannot_audit")["detail"]
        code, output = ledger.run("rebuild --wait 0")
        assert "To switch to version 2" in output
        code, output = run(ledger.env | {"LEDGER_VERSION": "2"}, "topics", "--check")
        assert code == 0, output


def test_status_and_every_other_program_report_a_record_that_was_deleted(
    usual_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with running(usual_kafka, tmp_path) as ledger:
        records = sorted(
            name
            for name in asyncio.run(describe(ledger.env))
            if any(part in name for part in ("plexy.partitions-", "plexy.log-", "ledger.topics-"))
        )
        assert len(records) == 3
        for record in records:
            asyncio.run(delete(ledger.env, record))
        wait_refused(ledger.env, "missing topics: ", "plexy.log-")
        detail = ledger.audit.wait_for("cannot_audit")["detail"]
        reason = ledger.worker.reason_of_end(within_s=60)
        outputs = [ledger.run(command)[1] for command in ("status", "doctor", "topics --check")]
        for each in (detail, reason, *outputs):
            assert [record for record in records if record not in each] == []
            assert "create them with `plexy-ledger topics`" in each
        code, output = ledger.run("topics")
        assert code == 0, output
        wait_ingress(ledger.ingress)


@pytest.mark.parametrize("but_the_records", [False, True], ids=["all", "all but the records"])
def test_no_program_and_no_command_creates_a_deleted_topic_again(
    usual_kafka: EmbeddedKafka,
    tmp_path: Path,
    but_the_records: bool,  # noqa: FBT001
) -> None:
    with running(usual_kafka, tmp_path) as ledger:
        kept = [
            name
            for name in asyncio.run(describe(ledger.env))
            if but_the_records and ("-" in name and not name.endswith("-changelog"))
        ]
        for topic in asyncio.run(describe(ledger.env)):
            if topic not in kept:
                asyncio.run(delete(ledger.env, topic))
        wait_refused(ledger.env, "missing topics: ")
        # A view that reads the log must not create a topic before the worker ends.
        ledger.worker.get("/orders/ord_0/events")
        ledger.worker.reason_of_end(within_s=90)
        ledger.audit.wait_for("cannot_audit")
        may_create = {"topics", "worker", "import-log FILE"}
        for command in (*JUDGING, *READING, "doctor ingest", SEND):
            if but_the_records or command not in may_create:
                code, output = ledger.run(command)
                assert code == 1 or command in {"prove PROOF", "version"}, (command, output)
        assert ask_ingress(ledger.env, "/readyz")[0] == 503
        assert ledger.audit.get("/readyz")[0] == 503
        assert sorted(asyncio.run(describe(ledger.env))) == sorted(kept)
