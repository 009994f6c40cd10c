"""Other tools can start the programs: ``faust … worker`` and ``uvicorn ingest.app:app``.

Both take all settings from the environment, stop on SIGTERM, and name a missing setting.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    free_port,
    lags,
    names_of,
    orders,
    read_topic,
    wait_folded,
)
from tests.kafka.programs import FAUST, UVICORN, wait_ingress

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET)


def end_of(command: list[str], env: Mapping[str, str]) -> tuple[int, str]:
    """Run a program that can't start; return its exit code and its whole output."""
    ended = subprocess.run(
        command,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_faust_runs_a_worker_that_has_committed_everything_when_it_stops(env):
    with WorkerProcess(env, FAUST) as worker:
        worker.wait_ready(90)
        deliver(env, orders([1]))
        wait_folded(env, worker)
        code, document = worker.get("/orders/ord_1")
        assert (code, document["totals"]) == (
            200,
            {"KZT": {"paid": 501, "refunded": 0, "net": 501}},
        )
        worker.stop(20)
    assert not any(lags(env).values())
    assert "Traceback" not in worker.log_file.read_text()


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"LEDGER_WEB_BIND": "0.0.0.0"}, "LEDGER_API_TOKEN"),  # noqa: S104
        ({"LEDGER_PARTITIONS": "four"}, "LEDGER_PARTITIONS"),
        ({"LEDGER_KAFKA_SASL_MECHANISM": "PLAIN"}, "LEDGER_KAFKA_PASSWORD"),
    ],
)
def test_faust_names_the_setting_that_keeps_the_worker_from_starting(env, wrong, remedy):
    code, output = end_of(FAUST, env | wrong)
    assert code != 0
    assert remedy in output.splitlines()[-1]
    assert "Traceback" not in output


def test_an_option_of_faust_does_not_bypass_the_required_token(env):
    bound = ["--web-bind", "0.0.0.0"]  # noqa: S104
    code, output = end_of([*FAUST, *bound], env)
    assert code != 0
    assert "LEDGER_API_TOKEN" in output


def test_uvicorn_runs_an_ingress_that_keeps_a_delivery_and_stops_on_sigterm(env):
    port = free_port()
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    with WorkerProcess(env | {"LEDGER_INGEST_PORT": str(port)}, [*UVICORN, str(port)]) as ingress:
        wait_ingress(ingress)
        body = event("evt_1")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            accepted = client.post(PATH, content=body, headers=signed(body))
            forged = client.post(
                PATH, content=body, headers=signed(body, secret="whsec_test_key_no")
            )
        ingress.signal(signal.SIGTERM)
        code = ingress.wait(within_s=20)
        output = ingress.log_file.read_text()
    assert (accepted.status_code, forged.status_code) == (200, 401), output
    assert code in {0, -signal.SIGTERM}, output
    assert "Traceback" not in output
    assert SECRET not in output
    (record,) = read_topic(env, names_of(env).webhooks)
    assert (record.key, record.value) == (b"evt_1", body)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"LEDGER_WEBHOOK_SECRETS": ""}, "LEDGER_WEBHOOK_SECRETS is not set"),
        ({"LEDGER_ALLOW_UNSIGNED": "true"}, "LEDGER_ALLOW_UNSIGNED"),
        ({"LEDGER_KAFKA_BOOTSTRAP": "nowhere"}, "LEDGER_KAFKA_BOOTSTRAP"),
    ],
)
def test_uvicorn_names_the_setting_that_keeps_ingress_from_starting(env, wrong, remedy):
    code, output = end_of([*UVICORN, str(free_port())], env | wrong)
    assert code != 0
    assert remedy in output.splitlines()[-1]
    assert "Traceback" not in output
    assert SECRET not in output
