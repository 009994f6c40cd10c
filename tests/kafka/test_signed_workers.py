"""Workers that check signatures never count a record that was signed without the secret.

`LEDGER_VERIFY_SIGNATURES=worker` is a rule of the ledger. `verify`, the views and a rebuild follow
the same rule. Without this rule, the first record of an event id counts, even if it is forged.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import OLD_SECRET, SECRET, signed
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    event,
    names_of,
    read_topic,
    run,
    state_of,
    wait_folded,
    write,
)
from tests.kafka.verification import verify

pytestmark = pytest.mark.timeout(300)

HONEST = [event(n, merchantReference=f"ord_{n}") for n in range(8)]
# The forged records have the same ids as the honest records, and come before them in the log.
FORGED = [event(n, merchantReference=f"ord_{n}", amount=999_999) for n in range(8)]


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Run a worker that checks signatures, and has folded forged and honest records."""
    env = environment(
        kafka.bootstrap,
        tmp_path / "ledger",
        webhook_secrets=SECRET,
        old_webhook_secrets=OLD_SECRET,
        verify_signatures="worker",
    )
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        forged = [signed(body, secret="whsec_test_key_guessed") for body in FORGED[:6]]
        forged += [OutRecord(f"evt_{n}".encode(), json.dumps(FORGED[n]).encode()) for n in (6, 7)]
        write(env, names_of(env).webhooks, forged)
        honest = [
            signed(body, secret=SECRET if n % 2 else OLD_SECRET) for n, body in enumerate(HONEST)
        ]
        write(env, names_of(env).webhooks, honest)
        wait_folded(env, worker)
        yield worker


def reasons(env: dict[str, str]) -> list[str]:
    found = [
        dict(each.headers)["reason"].decode() for each in read_topic(env, names_of(env).rejected)
    ]
    return sorted(found)


def test_forged_records_are_set_aside_and_neither_verify_nor_a_rebuild_finds_a_difference(ledger):
    env = ledger.env
    amounts = {
        fact.money.amount_minor
        for facts in state_of(env)["facts"].values()
        for fact in facts.values()
    }
    assert amounts == {body["data"]["amount"] for body in HONEST}
    assert reasons(env) == ["signature_refused"] * 8
    code, output = verify(env)
    assert code == 0, output
    assert "checked again, 8 not good, and set aside by the workers" in output
    assert "8 folded, 0 duplicates, 8 rejected" in output

    status, order = ledger.get("/orders/ord_3")
    assert (status, order["totals"]["KZT"]["paid"]) == (200, 503)
    status, proof = ledger.get("/orders/ord_3/proof")
    assert (status, proof["rules"]["signed_only"]) == (200, True)
    file = Path(env["LEDGER_DATA_DIR"]) / "proof.json"
    file.write_text(json.dumps(proof))
    assert run(env, "prove", file)[0] == 0
    other_rule = env | {"LEDGER_VERIFY_SIGNATURES": "ingress"}
    code, output = run(other_rule, "prove", file)
    assert code == 1
    assert "the proof was made with rules that differ" in output

    code, output = run(env, "rejected", "retry", "--all")
    assert code == 1
    assert "0 put back, 8 left as they are" in output
    assert "it is still rejected: signature_refused" in output

    code, output = run(env, "rebuild")
    assert code == 0, output
    assert reasons(env) == ["signature_refused"] * 16


def test_verify_without_the_rule_finds_differences(ledger):
    code, output = verify(ledger.env, LEDGER_VERIFY_SIGNATURES="ingress")
    assert code == 1
    assert "signature_invalid" in output
    assert "payment_" in output


@pytest.mark.parametrize("command", ["worker", "verify", "rebuild"])
def test_without_a_secret_no_command_that_checks_signatures_starts(kafka, tmp_path, command):
    env = environment(kafka.bootstrap, tmp_path, verify_signatures="worker", allow_unsigned="true")
    code, output = run(env, command)
    assert code == 2
    assert "LEDGER_VERIFY_SIGNATURES=worker" in output
