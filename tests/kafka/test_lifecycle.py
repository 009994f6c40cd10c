"""A worker can fold with the rule set `lifecycle`, and its state records the rules.

A worker with rules other than the recorded rules refuses to run. A rebuild folds a new state with
other rules.
"""

import asyncio
import json
import os
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.run.local import running
from cli.run.programs import Command
from ledger.lifecycle import LIFECYCLE, SEED
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    event,
    free_port,
    run,
    wait_folded,
)
from tests.kafka.verification import named, verify

pytestmark = pytest.mark.timeout(400)

BY_LIFECYCLE = {"LEDGER_RULES": "lifecycle"}


def story():
    """Return the events of an order that is partly captured, and charged back by a lost dispute."""
    dispute = {"id": "dp_1", "payment_id": "pay_1"}
    return [
        event(1, id="pay_1", amount=500, merchantReference="ord_1"),
        event(2, "payment.captured", id="pay_1", amount=300),
        event(3, "dispute.created", **dispute, amount=300),
        event(4, "dispute.lost", **dispute, amount=300),
    ]


def totals(worker: WorkerProcess) -> tuple[str, dict[str, int]]:
    status, order = worker.get("/orders/ord_1")
    assert status == 200
    return order["status"], order["totals"]["KZT"]


def test_other_rules_are_refused_until_a_rebuild_and_the_rebuild_shows_the_changed_totals(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET)
    other = env | BY_LIFECYCLE
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *story())
        wait_folded(env, worker)
        assert totals(worker) == ("paid", {"paid": 500, "refunded": 0, "net": 500})
        code, output = verify(other)
        assert code == 1, output
        assert "LEDGER_RULES is" in output
        worker.stop()
    with WorkerProcess(other) as refused:
        reason = refused.reason_of_end(90)
        assert reason.startswith("OtherStateError: ")
        for text in (SEED.digest, LIFECYCLE.digest, "plexy-ledger rebuild"):
            assert text in reason
    code, output = run(other, "rebuild")
    # The versions differ because their rules differ, but the new version is correct.
    assert code == 1, output
    assert "Version 2 is correct nevertheless" in output
    assert "with the rules lifecycle (column `log`):" in output
    assert "expenses:chargebacks" in output
    new = other | {"LEDGER_VERSION": "2"}
    with WorkerProcess(new) as worker:
        worker.wait_ready(90)
        assert totals(worker) == (
            "charged_back",
            {"paid": 300, "refunded": 0, "net": 0, "charged_back": 300},
        )
        code, output = verify(new)
        assert (code, named(output)) == (0, []), output
        assert f"lifecycle, {LIFECYCLE.digest}" in " ".join(output.split())
        _, proof = worker.get("/orders/ord_1/proof")
        assert proof["rules_digest"] == LIFECYCLE.digest
        file = tmp_path / "proof.json"
        file.write_text(json.dumps(proof))
        code, output = run(new, "prove", str(file))
        assert code == 0, output
        code, output = run(env, "prove", str(file))
        assert code == 1
        assert "rules that differ" in output


def test_the_check_of_a_simulation_with_lifecycle_events_finds_all_orders_as_expected(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = BY_LIFECYCLE | environment(
        kafka.bootstrap,
        tmp_path / "simulated",
        ingest_port=free_port(),
        webhook_secrets=SECRET,
        standby_replicas=0,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    probes = [
        (Command("ingest", kept | env), f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/readyz"),
        (Command("worker", kept | env), f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/readyz"),
    ]
    with running(probes):
        code, output = run(
            env, "simulate", "--seed", "5", "--events", "1500", "--rules", "lifecycle",
            "--check", "--check-within", "90", "--time-scale", "0.1",
        )  # fmt: skip
        assert code == 0, output
        assert "orders are as expected" in output
        code, output = verify(env)
        assert (code, named(output)) == (0, []), output
