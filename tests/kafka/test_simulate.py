"""`plexy-ledger simulate` checks a real ledger, and finds a change that another sender made."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.run.local import running
from cli.run.programs import Command
from cli.send import build_event, deliver, encode, signed_headers
from cli.simulate import oracle
from cli.simulate.check import Check
from cli.simulate.delivery import SenderOptions
from cli.simulate.schedule import deliveries
from cli.simulate.simulation import Simulation
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.fakes import until
from tests.kafka import harness

pytestmark = pytest.mark.timeout(240)

_SECRETS = ("whsec_test_key_old", "whsec_test_key_new")
_TOKEN = "a token for the views"


class _Ledger:
    """An ingress and a worker on a shared broker."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
        self.whole_env = kept | env
        self.ingest = Command("ingest", self.whole_env)
        self.worker = Command("worker", self.whole_env)
        self.ingest_url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
        self.views_url = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
        self.webhook_url = f"{self.ingest_url}/webhooks/plexy"

    def has(self, order_id: str) -> bool:
        url = f"{self.views_url}/orders/{quote(order_id, safe='')}"
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        return httpx.get(url, headers=headers, trust_env=False).is_success

    def start_simulate(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", "simulate", "--time-scale", "0.1", *arguments],
            env=self.whole_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def simulate(self, *arguments: str) -> tuple[int, str]:
        with self.start_simulate(*arguments) as process:
            output, _ = process.communicate(timeout=180)
        return process.returncode, output


@pytest.fixture(scope="module")
def ledger(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Ledger]:
    env = harness.environment(
        kafka.bootstrap,
        tmp_path_factory.mktemp("simulate"),
        ingest_port=harness.free_port(),
        webhook_secrets=",".join(_SECRETS),
        api_token=_TOKEN,
        standby_replicas=0,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    started = _Ledger(env)
    probes = [
        (started.ingest, f"{started.ingest_url}/readyz"),
        (started.worker, f"{started.views_url}/readyz"),
    ]
    with running(probes):
        yield started


def _report(file: Path) -> Any:
    return json.loads(file.read_bytes())


def _one_more_refund(ledger: _Ledger, seed: int, events: int) -> str:
    """Send a refund that is not part of the simulation; return the id of the refunded order."""
    foretold = oracle.orders(each.body for each in deliveries(seed, events))
    placed = [(name, order) for name, order in foretold.items() if order]
    order_id, order = placed[len(placed) // 2]
    data = {
        "id": "re_behind",
        "payment_id": order.payments[0].payment_id,
        "amount": 1,
        "currency": order.payments[0].currency or "KZT",
    }
    body = encode(build_event("evt_behind", "refund.succeeded", int(time.time()), data))
    with httpx.Client(trust_env=False) as client:
        headers = signed_headers(body, _SECRETS[1])
        assert deliver(client, ledger.webhook_url, body, headers).accepted
    return order_id


def test_every_order_is_checked_and_an_altered_order_is_reported(ledger, tmp_path):
    file = tmp_path / "report.json"
    run = ("--seed", "11", "--events", "2000", "--check", "--json", str(file))
    code, output = ledger.simulate(*run, "--check-within", "90")
    assert code == 0, output
    report = _report(file)
    assert report["acknowledged_events"] == 2000
    assert report["acknowledged"] == report["sent"] > 2000
    assert report["owed"] == []
    assert report["refused"].keys() == {"401 timestamp_out_of_tolerance"}
    assert report["checked"]["orders"] > 500
    assert report["checked"]["differing"] == []
    assert "orders are as expected" in output

    order_id = _one_more_refund(ledger, 11, 2000)
    code, output = ledger.simulate(*run, "--check-within", "15")
    assert code == 1, output
    (differing,) = _report(file)["checked"]["differing"]
    assert differing["order_id"] == order_id
    assert any(line.startswith("version: expected") for line in differing["lines"])
    assert "1 of" in output
    for secret in (*_SECRETS, _TOKEN):
        assert secret not in output + file.read_text()


async def test_acknowledged_deliveries_are_in_the_log_byte_for_byte_although_ingress_was_killed(
    ledger,
):
    options = SenderOptions(
        url=ledger.webhook_url, secrets=_SECRETS, rate_per_s=400, time_scale=0.05
    )
    simulation = Simulation(12, 1500, options)
    sending = asyncio.create_task(simulation.run())
    for reached in (200, 700):
        await until(lambda reached=reached: len(simulation.acknowledged) > reached)
        ledger.ingest.kill()
        before = simulation.tally.unanswered.total()
        await until(lambda before=before: simulation.tally.unanswered.total() > before)
        ledger.ingest.join(10)
        ledger.ingest.start()
    async with asyncio.timeout(120):
        await sending
    assert simulation.owed == {}
    assert len(simulation.acknowledged) == 1500
    topic = harness.names_of(ledger.env).webhooks
    records = await asyncio.to_thread(harness.read_topic, ledger.env, topic)
    logged = Counter((record.key.decode(), record.value) for record in records)
    sent = Counter((k, body) for k, bodies in simulation.acknowledged.items() for body in bodies)
    assert sent <= logged
    assert await Check(simulation.orders(), 16).run((ledger.views_url,), _TOKEN, 60) == []


def test_an_interrupt_reports_the_events_that_were_not_acknowledged(ledger, tmp_path):
    file = tmp_path / "report.json"
    run = ("--seed", "13", "--events", "100000", "--rate", "200", "--check", "--json", str(file))
    with ledger.start_simulate(*run) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Seed 13, to http://")
        # When the first order is in the ledger, some events are acknowledged, but most events are
        # not sent yet.
        first = next(deliveries(13, 100_000))
        order_id = next(name for name, order in oracle.orders([first.body]).items() if order)
        harness.until(lambda: ledger.has(order_id), within_s=30, what=f"order {order_id}")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    report = msgspec.json.decode(file.read_bytes())
    assert report["interrupted"]
    assert 0 < report["acknowledged_events"] < 100_000
    (owed,) = [line.split() for line in output.splitlines() if "events not acknowledged" in line]
    assert owed[-1] == str(len(report["owed"]))
