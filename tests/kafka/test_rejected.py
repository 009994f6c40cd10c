"""Rejections can be listed and shown; after a fix, each rejection is put back only once.

The fix is a setting: workers no longer read the field whose references are too long. After the
retry, the state must equal the result of a fold of the whole log with the new settings.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.run.local import running
from cli.run.programs import Command
from cli.send import signed_headers
from ingest.records import DeliveryHead, rejected_delivery_record, webhook_record
from ledger.envelope import Envelope, decode_envelope
from ledger.rejected import MAX_KEPT_BYTES
from ledger.rejections import Reason, Rejection
from ledger.signature import sign
from runtime.kafka.batches import OutRecord, partition_for
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    event,
    free_port,
    names_of,
    read_topic,
    run,
    state_of,
    wait_folded,
    write,
)

pytestmark = pytest.mark.timeout(300)

FIX = {"LEDGER_PAYMENT_FIELDS": "originalReference"}
TOO_LONG = "x" * 600


def delivery_of(raw: bytes, secret: str = SECRET) -> DeliveryHead:
    now_s = int(time.time())
    signature = sign(raw, secret.encode(), now_s).encode()
    return DeliveryHead(signature, b"application/json", None, now_s * 1000 + 7)


def items(env: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "rejected", "list", "--json", *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def count(env: dict[str, str]) -> dict[str, int]:
    names = names_of(env)
    topics = (names.webhooks, names.events, names.rejected)
    return {topic: len(read_topic(env, topic)) for topic in topics}


def kinds(output: str) -> set[str]:
    lines = (line.partition(": ")[0].split("  ") for line in output.splitlines())
    return {f"{words[0]} {words[1]}" for words in lines if len(words) == 2 and "_" in words[0]}


def history() -> list[dict[str, Any]]:
    """Return good events, and three refunds that workers can't read with the old settings.

    The third refund is too large, so the quarantine does not keep its bytes.
    """
    good = [event(n, orderReference=f"ord_{n % 3}") for n in range(12)]
    bad = [refund_of(n, payment_id=TOO_LONG, orderReference="ord_1") for n in (50, 51, 52)]
    bad[2]["data"]["note"] = "y" * 2 * MAX_KEPT_BYTES
    return [*good, refund_of(100, originalReference="pay_50"), *bad, bad[0]]


def refund_of(number: int, **data: Any) -> dict[str, Any]:
    named = {"originalReference": f"pay_{number}", **data}
    return event(number, "refund.succeeded", id=f"re_{number}", **named)


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Run a worker that has folded the history without the fix."""
    env = environment(kafka.bootstrap, tmp_path / "worker", webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *history())
        wait_folded(env, worker)
        yield worker


def restart_with_the_fix(worker: WorkerProcess) -> dict[str, str]:
    assert worker.process
    worker.process.terminate()
    worker.wait(30)
    worker.env |= FIX
    worker.start()
    worker.wait_ready(90)
    return worker.env


def test_after_a_fix_a_retry_gives_the_state_of_a_new_fold_and_a_second_retry_changes_nothing(
    ledger, kafka, tmp_path
):
    env = ledger.env
    assert run(env, "verify")[0] == 0
    listed = items(env)
    assert sorted(item["key"] for item in listed) == ["evt_50", "evt_51", "evt_52"]
    assert {item["reason"] for item in listed} == {"reference_too_long"}
    assert [item["key"] for item in listed if item["unkept"]] == ["evt_52"]
    before = count(env)
    # Without the fix, a retry puts nothing back.
    code, output = run(env, "rejected", "retry", "--all")
    assert code == 1
    assert output.count("it is still rejected: reference_too_long") == 3
    assert "0 put back, 3 left as they are" in output

    env = restart_with_the_fix(ledger)
    code, output = run(env, "verify")
    assert code == 1
    assert {
        "seen_differs event evt_50",
        "payment_differs payment pay_50",
        "payment_missing payment pay_51",
        "payment_missing payment pay_52",
        "payment_unexplained payment evt_50",
        "order_differs order ord_1",
        "document_differs order ord_1",
    } <= kinds(output), output
    assert "it lacks event evt_50" in output
    assert ledger.get("/payments/pay_51")[0] == 404
    code, output = run(env, "rejected", "retry", "--all", "--dry-run")
    assert code == 0
    assert "3 would be put back" in output
    assert count(env) == before

    one, *rest = [item["id"] for item in listed]
    code, output = run(env, "rejected", "retry", one)
    assert code == 0, output
    assert f"put back   {one}: to {names_of(env).webhooks}/" in output
    assert [item["id"] for item in items(env)] == rest
    code, output = run(env, "rejected", "retry", "--reason", "reference_too_long")
    assert code == 0, output
    assert "2 put back, 0 left" in output
    wait_folded(env, ledger)
    code, output = run(env, "verify")
    assert code == 0, output
    assert "No difference" in output
    (refund,) = ledger.get("/payments/pay_51")[1]["refunds"]
    assert refund["amount"] == 551
    assert items(env) == []

    # A retry skips items that were put back. With `--again`, a retry puts them back a second time,
    # which changes no state.
    state, after = state_of(env), count(env)
    assert after[names_of(env).webhooks] == before[names_of(env).webhooks] + 3
    for words in (("--all",), tuple(item["id"] for item in listed)):
        code, output = run(env, "rejected", "retry", *words)
        assert code == 0, output
        assert "0 put back" in output
    assert count(env) == after
    code, output = run(env, "rejected", "retry", "--all", "--again")
    assert "3 put back" in output
    wait_folded(env, ledger)
    assert count(env)[names_of(env).webhooks] == after[names_of(env).webhooks] + 3
    assert state_of(env) == state
    assert run(env, "verify")[0] == 0
    assert [item["state"] for item in items(env, "--all")] == ["put_back"] * 3
    assert_equals_a_fold_from_scratch(env, kafka, tmp_path)


def assert_equals_a_fold_from_scratch(
    env: dict[str, str], kafka: EmbeddedKafka, folder: Path
) -> None:
    """Fold the same log from scratch, in a new ledger that has the fix; compare the states."""
    other = environment(kafka.bootstrap, folder / "scratch", webhook_secrets=SECRET) | FIX
    assert run(env, "export-log", folder / "file.log")[0] == 0
    assert run(other, "import-log", folder / "file.log")[0] == 0
    with WorkerProcess(other) as worker:
        worker.wait_ready(90)
        wait_folded(other, worker)
        assert state_of(other) == state_of(env)
        assert items(other, "--all") == []


def test_a_retry_skips_final_rejections_and_broken_bodies_and_gives_the_reason(ledger):
    env = ledger.env
    names = names_of(env)
    deliver(env, event(3, orderReference="ord_else"))
    raw = json.dumps(event(70)).encode()
    write(env, names.webhooks, [OutRecord(b"evt_other", raw), OutRecord(b"broken", b"\x1b[2J{")])
    wait_folded(env, ledger)
    before = count(env)
    code, output = run(env | FIX, "rejected", "retry", "--reason", "event_id_reused")
    assert code == 1
    assert "this was a decision: its id was seen before with other content" in output
    code, output = run(env | FIX, "rejected", "retry", "--reason", "key_mismatch")
    assert code == 1
    assert "this was a decision: its record lies under another key than the event's id" in output
    code, output = run(env | FIX, "rejected", "retry", "--reason", "malformed_json")
    assert code == 1
    assert "it is still rejected: malformed_json" in output
    assert count(env) == before


def test_the_commands_list_and_show_print_the_details_and_no_control_characters(ledger):
    env = ledger.env
    place = partition_for(b"broken", PARTITIONS)
    write(env, names_of(env).webhooks, [OutRecord(b"broken", b"\x1b[2J{\xff\nx")])
    wait_folded(env, ledger)
    code, output = run(env, "rejected", "list")
    assert code == 0, output
    assert "4 open, 0 put back" in output
    (line,) = [line for line in output.splitlines() if "malformed_json" in line]
    assert line.startswith(f"{names_of(env).webhooks}/{place}/")
    assert line.split()[3] == "open"
    assert items(env, "--since", "2100-01-01") == []
    (item,) = items(env, "--reason", "malformed_json")
    assert item["source"]["partition"] == place
    code, output = run(env, "rejected", "show", item["id"])
    assert code == 0, output
    assert "\x1b" not in output
    assert output.splitlines()[-1] == "\\x1b[2J{\\xff\\nx"
    assert "arrival_unknown" in output
    raw = subprocess.run(
        [sys.executable, "-m", "cli", "rejected", "show", "--raw", item["id"]],
        env=os.environ | env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert raw.stdout == b"\x1b[2J{\xff\nx"

    (item, *_) = items(env, "--reason", "reference_too_long")
    code, output = run(env | FIX, "rejected", "show", item["id"])
    assert "signature  good" in output
    assert "header     plexy-signature: t=" in output
    assert f"now        a retry would put it into {names_of(env).webhooks} with the key" in output
    assert SECRET not in output
    code, output = run(env, "rejected", "show", "plexy.webhooks/9/9")
    assert code == 2
    assert "no rejected item has the id plexy.webhooks/9/9" in output
    code, output = run(env, "rejected", "retry")
    assert code == 2
    assert "choose exactly one of ids" in output


@pytest.fixture
def ingress(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Run an ingress and a worker; yield the settings and the address for deliveries."""
    env = environment(kafka.bootstrap, tmp_path, webhook_secrets=SECRET, ingest_port=free_port())
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    ingest, worker = Command("ingest", kept | env), Command("worker", kept | env)
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    views = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
    with running([(ingest, f"{url}/readyz"), (worker, f"{views}/readyz")]):
        yield env, f"{url}/webhooks/plexy"


def post(url: str, raw: bytes) -> int:
    request = urllib.request.Request(url, raw, signed_headers(raw, SECRET))  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_retry_puts_a_refused_body_into_the_same_record_that_ingress_would_write(ingress):
    env, url = ingress
    names = names_of(env)
    assert post(url, b'{"id": "evt_1"}') == post(url, b'{"id": "evt_1"}') == 400
    # An earlier release of ingress, which could not read these bodies, wrote such records.
    refused = Rejection(reason=Reason.INVALID_ENVELOPE, detail="of former code", field="created")
    good, forged = (json.dumps(event(n, orderReference="ord_1")).encode() for n in (1, 2))
    deliveries = {good: delivery_of(good), forged: delivery_of(forged, "whsec_test_key_guessed")}
    for raw, delivery in deliveries.items():
        new = rejected_delivery_record(names, delivery, raw, refused, None)
        write(env, names.rejected, [OutRecord(new.key, new.value, new.headers, new.timestamp_ms)])

    assert sorted(item["times"] for item in items(env)) == [1, 1, 2]
    code, output = run(env, "rejected", "retry", "--all")
    assert code == 1
    assert "its signature is not good: signature_mismatch" in output
    assert "it is still rejected: invalid_envelope" in output
    assert "1 put back, 2 left as they are" in output
    (logged,) = read_topic(env, names.webhooks)
    delivery, envelope = deliveries[good], decode_envelope(good)
    assert isinstance(envelope, Envelope)
    expected = webhook_record(names, delivery, good, envelope)
    found = (logged.key, logged.value, list(logged.headers), logged.timestamp)
    assert found == (expected.key, good, expected.headers, delivery.received_at_ms)
    place = f"{names.webhooks}/{logged.partition}/{logged.offset}"
    assert [item["put_back"]["to"] for item in items(env, "--all") if item["put_back"]] == [place]
    wait_folded(env)
    state = state_of(env)
    assert set(state["facts"]) == {b"pay_1"}
    code, output = run(env, "verify")
    assert code == 0, output

    # If a retry crashes before it marks the item, a later retry puts the item back a second time.
    # The event still counts once.
    code, output = run(env, "rejected", "retry", "--all", "--again")
    assert "1 put back" in output
    assert len(read_topic(env, names.webhooks)) == 2
    wait_folded(env)
    assert state_of(env) == state
    code, output = run(env, "verify")
    assert code == 0, output
    assert "1 folded, 1 duplicate" in output
