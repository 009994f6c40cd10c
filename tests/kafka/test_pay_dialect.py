"""The Pay API's notifications pass through ingress, Kafka, the workers, the views and the checks.

A ledger accepts webhooks and Pay API notifications while its token is replaced. The amounts of the
Pay API are in major units.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.notifications import PAY_PATH, bearer_headers, build_notification, iso_time
from ledger.dialects import pay_headers
from ledger.pay import PayAmounts
from tests.ingest.conftest import PATH
from tests.kafka.answers import SECRET, TOKEN, get, paid, signed
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    free_port,
    names_of,
    read_topic,
    run,
    wait_folded,
)
from tests.kafka.programs import program, wait_ingress
from tests.kafka.verification import verify

pytestmark = pytest.mark.timeout(300)

OLD, NEW = "pay_token_of_the_tests_old", "pay_token_of_the_tests_new"
NOW_S = int(time.time())


class Ledger(NamedTuple):
    """An ingress and a worker; the worker checks signatures only for its views."""

    ingress: WorkerProcess
    worker: WorkerProcess

    @property
    def env(self) -> dict[str, str]:
        return self.worker.env

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        url = f"http://127.0.0.1:{self.env['LEDGER_INGEST_PORT']}{path}"
        return httpx.post(
            url, content=body, headers=dict(headers), trust_env=False, timeout=30
        ).status_code

    def notify(self, body: bytes, token: str = OLD) -> int:
        return self.post(PAY_PATH, body, bearer_headers(token))


def told(status: str, transaction: str, at_s: int, **more: Any) -> bytes:
    """Return a notification with amounts in major units."""
    data = {"id": transaction, "currency": "KZT", "updatedAt": iso_time(at_s), **more}
    return json.dumps(build_notification(status, data)).encode()


ORDER = {"merchantReference": "ord_1"}
AUTHORISED = told("authorized", "txn_1", NOW_S - 9, amount=1500.5, processedAmount=0, **ORDER)
CHARGED = told("charged", "txn_1", NOW_S - 8, amount=1500.5, processedAmount=1000.25, **ORDER)
REFUNDED = told(
    "refunded",
    "txn_2",
    NOW_S - 7,
    amount="100.10",
    type="refund",
    parentTransactionId={"Value": "txn_1"},
)
TOO_PRECISE = told("charged", "txn_3", NOW_S - 6, amount=1.005, **ORDER)
TIMELESS = json.dumps(build_notification("charged", {"id": "txn_4", "amount": 1})).encode()


@pytest.fixture(scope="module")
def ledger(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Run a ledger that has accepted deliveries of both dialects."""
    folder = tmp_path_factory.mktemp("pay")
    env = environment(
        kafka.bootstrap,
        folder / "worker",
        webhook_secrets=SECRET,
        pay_amounts="major",
        api_token=TOKEN,
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
        log_level="debug",
        standby_replicas=0,
    )
    tokens = {"LEDGER_PAY_TOKENS": f"{OLD},{NEW}"}
    with (
        WorkerProcess(env) as worker,
        program("ingest", env | tokens) as ingress,
    ):
        wait_ingress(ingress)
        worker.wait_ready(90)
        started = Ledger(ingress, worker)
        record = signed(paid("evt_1", "pay_1", "ord_1"))
        headers = {"Content-Type": "application/json"}
        headers["Plexy-Signature"] = dict(record.headers)["plexy-signature"].decode()
        assert started.post(PATH, record.value, headers) == 200
        for body in (REFUNDED, CHARGED, AUTHORISED, TOO_PRECISE, TIMELESS):
            assert started.notify(body) == 200
        assert started.notify(CHARGED, NEW) == 200
        assert started.notify(CHARGED, "pay_token_of_a_stranger") == 401
        wait_folded(env, worker)
        yield started


def test_payments_of_both_dialects_are_in_one_order_and_each_delivery_counts_once(ledger):
    order = get(ledger.env, "/orders/ord_1")
    assert [each["payment_id"] for each in order["payments"]] == ["pay_1", "txn_1"]
    assert order["totals"] == {"KZT": {"paid": 500 + 100025, "refunded": 10010, "net": 90515}}
    (charge,) = [each for each in order["payments"] if each["payment_id"] == "txn_1"]
    assert (charge["status"], charge["amount"]) == ("succeeded", 100025)
    assert [each["refund_id"] for each in charge["refunds"]] == ["txn_2"]


def test_the_views_say_which_deliveries_came_with_a_bearer_token(ledger):
    deliveries = get(ledger.env, "/orders/ord_1/events")["deliveries"]
    found = sorted({(each["type"], each["signature"]) for each in deliveries})
    # The worker has the signing secret, so it checks each delivery that has a signature.
    assert found == [
        ("payment.succeeded", "good"),
        ("transaction.authorized", "bearer"),
        ("transaction.charged", "bearer"),
        ("transaction.refunded", "bearer"),
    ]


def test_the_log_has_each_body_byte_for_byte_with_the_headers_of_its_dialect(ledger):
    records = read_topic(ledger.env, names_of(ledger.env).webhooks)
    notifications = [each for each in records if each.key.startswith(b"pay:")]
    assert {each.value for each in notifications} == {
        REFUNDED,
        CHARGED,
        AUTHORISED,
        TOO_PRECISE,
        TIMELESS,
    }
    assert {tuple(each.headers[:3]) for each in notifications} == {pay_headers(PayAmounts.MAJOR)}


def test_verify_counts_bearer_records_and_refuses_them_if_the_pay_api_is_not_configured(ledger):
    code, output = verify(ledger.env)
    assert code == 0, output
    assert "0 not good; 6 records by bearer token" in output
    code, output = verify(ledger.env, LEDGER_PAY_AMOUNTS="")
    assert code == 1
    assert "bearer_not_expected" in output


def test_a_proof_is_valid_and_says_how_many_deliveries_have_no_signature(ledger, tmp_path):
    proof = tmp_path / "proof.json"
    proof.write_text(json.dumps(get(ledger.env, "/orders/ord_1/proof")))
    code, output = run(ledger.env, "prove", proof)
    assert code == 0, output
    assert "1 of 1 signature good" in output
    assert "by bearer token" in output


def test_a_notification_that_cannot_be_read_is_listed_with_its_reason(ledger):
    code, output = run(ledger.env, "rejected", "list")
    assert code == 0, output
    assert "amount_too_precise" in output
    assert "created_unreadable" in output
    code, output = run(ledger.env, "rejected", "retry", "--all", "--dry-run")
    assert "it is still rejected" in output


def test_an_exported_log_is_restored_with_the_dialect_of_each_record(ledger, tmp_path):
    def log_of(env: Mapping[str, str]) -> list[tuple[Any, ...]]:
        records = read_topic(env, names_of(env).webhooks)
        return sorted((r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in records)

    code, output = run(ledger.env, "export-log", tmp_path / "log")
    assert code == 0, output
    other = ledger.env | {"LEDGER_TOPIC_PREFIX": f"{ledger.env['LEDGER_TOPIC_PREFIX']}restored."}
    code, output = run(other, "import-log", tmp_path / "log")
    assert code == 0, output
    assert log_of(other) == log_of(ledger.env)


def test_no_token_appears_in_topics_metrics_logs_or_reports(ledger):
    env = ledger.env
    metrics = httpx.get(
        f"http://127.0.0.1:{env['LEDGER_INGEST_METRICS_PORT']}/metrics", trust_env=False
    ).text
    assert 'deliveries_total{dialect="pay",outcome="accepted"} 6.0' in metrics
    assert 'deliveries_total{dialect="pay",outcome="token_mismatch"} 1.0' in metrics
    names = names_of(env)
    topics = (names.webhooks, names.rejected, names.events, names.payments, names.orders)
    _, doctor = run(env | {"LEDGER_PAY_TOKENS": f"{OLD},{NEW}"}, "doctor", "ingest")
    everywhere = {
        "the metrics": metrics,
        "the doctor": doctor,
        **{topic: repr(read_topic(env, topic)) for topic in topics},
        "the log of ingress": ledger.ingress.log_file.read_text(),
        "the log of the worker": ledger.worker.log_file.read_text(),
    }
    assert '"outcome": "token_mismatch"' in everywhere["the log of ingress"]
    for place, text in everywhere.items():
        assert "pay_token_of" not in text, place


def test_a_retired_token_is_refused_after_a_restart_of_ingress(ledger):
    ledger.ingress.stop()
    retired = WorkerProcess(ledger.ingress.env | {"LEDGER_PAY_TOKENS": NEW}, ledger.ingress.command)
    retired.log_file = ledger.ingress.log_file.with_name("retired.log")
    with retired:
        wait_ingress(retired)
        assert ledger.notify(CHARGED, OLD) == 401
        assert ledger.notify(CHARGED, NEW) == 200
        simulated = run(
            retired.env, "simulate", "--dialects", "sdk,pay", "--events", "300", "--check"
        )
    assert simulated[0] == 0, simulated[1]


def test_a_worker_that_checks_signatures_folds_bearer_records_only_if_the_pay_api_is_configured(
    ledger, tmp_path
):
    def rejected(**settings: str) -> list[bytes]:
        prefix = f"{ledger.env['LEDGER_TOPIC_PREFIX']}{len(settings)}."
        env = ledger.env | {
            "LEDGER_TOPIC_PREFIX": prefix,
            "LEDGER_DATA_DIR": str(tmp_path / prefix),
            "LEDGER_VERIFY_SIGNATURES": "worker",
            "LEDGER_WEB_PORT": str(free_port()),
            **settings,
        }
        assert run(ledger.env, "export-log", tmp_path / f"{prefix}log")[0] == 0
        assert run(env, "import-log", tmp_path / f"{prefix}log")[0] == 0
        with WorkerProcess(env) as worker:
            worker.wait_ready(90)
            wait_folded(env, worker)
        records = read_topic(env, names_of(env).rejected)
        return [dict(each.headers)["reason"] for each in records]

    assert b"signature_refused" not in rejected()
    assert b"signature_refused" in rejected(LEDGER_PAY_AMOUNTS="")
