"""`plexy-ledger status` shows the state of real programs, and its exit code reports problems."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.ingest.conftest import SECRET
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    free_port,
    run,
    second_of,
    wait_folded,
)
from tests.kafka.programs import INGEST, wait_ingress

pytestmark = pytest.mark.timeout(240)

TOKEN = "token of the test"


@pytest.fixture(scope="module")
def programs(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """Run a worker that requires a token, and an ingress, both with metrics."""
    folder = tmp_path_factory.mktemp("status")
    env = environment(
        kafka.bootstrap,
        folder / "worker",
        webhook_secrets=SECRET,
        api_token=TOKEN,
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
    )
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        ingest_env = env | {"LEDGER_DATA_DIR": str(folder / "ingest")}
        with WorkerProcess(ingest_env, INGEST) as ingest:
            wait_ingress(ingest)
            yield worker, ingest


def seen(env: Mapping[str, str], *options: object) -> tuple[int, dict]:
    code, output = run(env, "status", "--json", *options)
    return code, json.loads(output)


def test_all_is_well_when_everything_is_folded_and_every_program_answers(programs):
    worker, _ = programs
    env = worker.env
    deliver(env, (event(n) for n in range(50)))
    wait_folded(env, worker)
    code, look = seen(env)
    assert (code, look["well"], look["problems"]) == (0, True, [])
    assert {hop["hop"]: hop["lag_records"] for hop in look["hops"]} == {
        "dedupe": 0,
        "payments": 0,
        "orders": 0,
    }
    assert sum(each["end"] for each in look["hops"][0]["partitions"]) == 50
    numbers = {program["name"]: program["numbers"] for program in look["programs"]}
    assert numbers["worker"]["folded"] == 50
    assert numbers["worker"]["active"] == 4
    assert numbers["ingest"]["accepted"] == 0
    code, text = run(env, "status")
    assert code == 0
    assert "all is well" in text
    assert "folded 50" in text


def test_a_suspended_worker_is_behind_and_does_not_answer(programs):
    worker, _ = programs
    env = worker.env
    worker.freeze()
    deliver(env, (event(n) for n in range(50, 80)))
    code, look = seen(env, "--within", 1)
    assert code == 1
    assert look["hops"][0]["lag_records"] == 30
    codes = {(each["code"], each["subject"].split()[0]) for each in look["problems"]}
    assert codes == {("behind", "dedupe"), ("no_answer", "worker")}
    worker.go_on()
    wait_folded(env, worker)
    worker.wait_ready()


def test_an_ingress_that_has_ended_is_reported(programs):
    worker, ingest = programs
    ingest.signal(signal.SIGTERM)
    ingest.wait(20)
    code, text = run(worker.env, "status")
    assert code == 1
    address = f"http://127.0.0.1:{worker.env['LEDGER_INGEST_PORT']}"
    assert f"no_answer  ingest {address}: no answer" in text
    assert "all is well" not in text
    ingest.start()
    wait_ingress(ingest)


def test_all_is_well_when_a_backlog_is_folded_within_the_limit(programs):
    worker, _ = programs
    worker.freeze()
    deliver(worker.env, (event(n) for n in range(200)))
    looking = subprocess.Popen(
        [sys.executable, "-m", "cli", "status", "--json", "--within", "60"],
        env=os.environ | worker.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker.go_on()
    output, _ = looking.communicate(timeout=90)
    assert looking.returncode == 0, output
    assert json.loads(output)["problems"] == []


def test_status_without_the_token_shows_readiness_but_no_numbers(programs):
    worker, _ = programs
    code, look = seen(worker.env | {"LEDGER_API_TOKEN": ""})
    assert code == 0
    (program,) = [each for each in look["programs"] if each["name"] == "worker"]
    assert program["ready"]
    assert program["numbers"] is None


def test_while_kafka_is_down_the_first_problem_names_kafka_and_the_remedy(tmp_path):
    env = environment(f"127.0.0.1:{free_port()}", tmp_path, ingest_port=free_port())
    code, look = seen(env)
    assert code == 1
    assert look["hops"] == []
    assert [each["code"] for each in look["problems"]] == [
        "kafka_unavailable",
        "no_answer",
        "no_answer",
    ]
    assert "LEDGER_KAFKA_BOOTSTRAP" in look["problems"][0]["detail"]


def test_missing_topics_are_reported(kafka, tmp_path):
    code, look = seen(environment(kafka.bootstrap, tmp_path, ingest_port=free_port()))
    assert code == 1
    assert look["problems"][0]["code"] == "topic_missing"
    assert "plexy-ledger topics" in look["problems"][0]["detail"]


def test_status_with_watch_repeats_until_ctrl_c_and_ends_with_the_last_exit_code(programs):
    worker, _ = programs
    watching = subprocess.Popen(
        [sys.executable, "-m", "cli", "status", "--json", "--watch", "--every", "0.2"],
        env=os.environ | worker.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
    assert all(look["well"] for look in looks)
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=20)
    assert watching.returncode == 0
    assert errors == ""


def test_several_workers_are_asked_at_the_given_addresses(programs, tmp_path):
    worker, _ = programs
    env = second_of(worker.env, tmp_path / "second")
    with WorkerProcess(env) as second:
        second.wait_ready(90)
        worker.wait_ready(90)
        ports = [each.env["LEDGER_WEB_PORT"] for each in (worker, second)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        nobody = f"http://127.0.0.1:{free_port()}/"
        options = [part for url in (*urls, nobody) for part in ("--worker", url)]
        code, look = seen(env, *options)
    assert code == 1
    workers = [program for program in look["programs"] if program["name"] == "worker"]
    assert [program["ready"] for program in workers] == [True, True, False]
    assert sum(program["numbers"]["active"] for program in workers[:2]) == 4
    assert [each["code"] for each in look["problems"]] == ["no_answer"]
