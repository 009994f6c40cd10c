"""Two deployments that share a prefix by mistake never fold with two sets of settings.

Each test runs the workers of both deployments; each deployment has its own settings.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import SECRET
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    positions,
    run,
    second_of,
    until,
    wait_folded,
)
from tests.kafka.programs import AuditProcess

pytestmark = pytest.mark.timeout(300)

CHECKED = {"LEDGER_VERIFY_SIGNATURES": "worker", "LEDGER_WEBHOOK_SECRETS": SECRET}
# Each case has the settings of a worker, and the settings of several strangers. A stranger is a
# worker of the other deployment. Each stranger differs from the worker only in the named setting.
OTHERS = {
    "workers that check no signature": (
        {},
        {
            "LEDGER_FORGET_AFTER_DAYS": {"LEDGER_FORGET_AFTER_DAYS": "30"},
            "LEDGER_ORDER_FIELDS": {"LEDGER_ORDER_FIELDS": "order"},
            "LEDGER_PAYMENT_FIELDS": {"LEDGER_PAYMENT_FIELDS": "payment"},
            "LEDGER_VERIFY_SIGNATURES": CHECKED,
        },
    ),
    "workers that check signatures": (
        CHECKED,
        {
            "LEDGER_SIGNED_FORM": {"LEDGER_SIGNED_FORM": "body"},
            "LEDGER_SIGNATURE_TOLERANCE_S": {"LEDGER_SIGNATURE_TOLERANCE_S": "9"},
            "LEDGER_WEBHOOK_SECRETS": {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_other"},
        },
    ),
}


@pytest.mark.parametrize("workers", OTHERS)
def test_a_worker_whose_settings_change_the_fold_is_refused_and_names_the_differing_setting(
    kafka: EmbeddedKafka, tmp_path: Path, workers: str
) -> None:
    one, others = OTHERS[workers]
    env = environment(kafka.bootstrap, tmp_path / "one") | one
    with WorkerProcess(env) as worker, ExitStack() as strangers:
        worker.wait_ready(90)
        # A stranger waits 15 s for the group's workers to end, so all strangers wait in parallel.
        started = {
            setting: strangers.enter_context(
                WorkerProcess(second_of(env, tmp_path / setting) | other)
            )
            for setting, other in others.items()
        }
        for setting, kept_out in started.items():
            reason = kept_out.reason_of_end(60)
            assert reason.startswith("OtherRulesError: ")
            assert f"{setting} " in reason
            for secret in (SECRET, "whsec_test_key_other"):
                assert secret not in kept_out.tail()
            assert not kept_out.logged("ready")
        # No partition has moved.
        assert worker.get("/readyz")[0] == 200
        assert len(worker.logged("ready")) == 1


def test_workers_that_have_one_secret_in_common_fold_in_one_group_while_secrets_are_replaced(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "one") | CHECKED
    ahead = env | {"LEDGER_WEBHOOK_SECRETS": f"whsec_test_key_next,{SECRET}"}
    with WorkerProcess(env) as first:
        first.wait_ready(90)
        with WorkerProcess(second_of(ahead, tmp_path / "two")) as second:
            second.wait_ready(90)
            assert second.logged("ready")[-1]["partitions"]


def test_a_worker_can_start_with_different_settings_after_all_other_workers_have_ended(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path)
    with WorkerProcess(env) as before:
        before.wait_ready(90)
        before.stop()
    # The stopped worker's own membership lasts until its session ends.
    with WorkerProcess(env | {"LEDGER_ORDER_FIELDS": "order"}) as after:
        deliver(env, [event(1, order="ord_1")])
        after.wait_ready(90)
        wait_folded(env, after)
        assert after.get("/orders/ord_1")[0] == 200


def test_workers_whose_different_settings_do_not_change_the_fold_share_a_group(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "one")
    more = {"LEDGER_CHUNK_RECORDS": "7", "LEDGER_STANDBY_REPLICAS": "0"}
    other = second_of(env, tmp_path / "two") | more
    with WorkerProcess(env) as first, WorkerProcess(other) as second:
        first.wait_ready(90)
        second.wait_ready(90)
        deliver(env, [event(n, merchantReference=f"ord_{n}") for n in range(40)])
        wait_folded(env, first, second)
        assert all(first.get(f"/orders/ord_{n}")[0] == 200 for n in range(40))
        assert sum(at.committed for at in positions(env).values()) == 3 * 40


def test_verify_and_audit_and_doctor_name_a_setting_that_differs_from_the_workers_setting(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "one", webhook_secrets=SECRET)
    told = "LEDGER_FORGET_AFTER_DAYS is 90 in the group and 30 in this program"
    other = env | {"LEDGER_FORGET_AFTER_DAYS": "30"}
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, [event(1, merchantReference="ord_1")])
        wait_folded(env, worker)
        for settings, expected in ((env, False), (other, True)):
            _, printed = run(settings, "verify")
            assert (told in printed) is expected, printed
            code, printed = run(settings, "doctor", "worker")
            assert (told in printed, code) == (expected, int(expected)), printed
        with AuditProcess(other, tmp_path / "audit") as audit:
            until(
                lambda: any(told in line["detail"] for line in audit.logged("other_settings")),
                within_s=60,
                what=f"the setting in the audit's log\n{audit.tail()}",
            )
