"""Before `run` starts a program, it chooses settings and ports, and prints commands to paste."""

import pytest

from cli.run.command import describe, plan
from cli.settings import DEVELOPMENT_SECRET
from runtime.settings import SettingsError

_NOW_S = 1767225600


def _described(*, on_terminal: bool = False, **settings: str) -> str:
    return describe(plan(settings), now_s=_NOW_S, on_terminal=on_terminal)


def test_if_nothing_is_set_the_ports_are_the_default_ports():
    ports = [(each.variable, each.port) for each in plan({}).ports()]
    assert ports == [
        ("LEDGER_KAFKA_PORT", 19092),
        ("LEDGER_INGEST_PORT", 8000),
        ("LEDGER_INGEST_METRICS_PORT", 8100),
        ("LEDGER_WEB_PORT", 6066),
    ]


def test_the_command_run_starts_no_broker_if_a_kafka_is_configured():
    planned = plan({"LEDGER_KAFKA_BOOTSTRAP": "kafka.example:9092"})
    assert not planned.embeds_kafka
    assert planned.worker.bootstrap_servers == ["kafka.example:9092"]
    assert all(each.program != "kafka" for each in planned.ports())


def test_without_a_secret_the_command_run_uses_the_development_secret_and_reports_this():
    text = _described()
    assert f"-hmac {DEVELOPMENT_SECRET}" in text
    assert "LEDGER_WEBHOOK_SECRETS is not set" in text


def test_the_command_run_reports_that_it_needs_no_secret_if_unsigned_deliveries_are_allowed():
    planned = plan({"LEDGER_ALLOW_UNSIGNED": "true"})
    assert planned.ingest.webhook_secrets == ()
    assert "none is required" in _described(LEDGER_ALLOW_UNSIGNED="true")


def test_an_empty_list_of_order_fields_is_refused():
    with pytest.raises(SettingsError, match="LEDGER_ORDER_FIELDS"):
        plan({"LEDGER_ORDER_FIELDS": ","})


def test_too_little_memory_for_the_tables_is_refused():
    with pytest.raises(SettingsError, match=r"LEDGER_TABLE_MEMORY_MB=256 .* at least 384"):
        plan({"LEDGER_PARTITIONS": "64"})


def test_the_users_secret_is_shown_only_on_a_terminal():
    shown = _described(
        on_terminal=True, LEDGER_WEBHOOK_SECRETS="whsec_test_key_mine,whsec_test_key_old"
    )
    assert "-hmac whsec_test_key_mine |" in shown
    piped = _described(
        on_terminal=False, LEDGER_WEBHOOK_SECRETS="whsec_test_key_mine,whsec_test_key_old"
    )
    assert "whsec_test_key_mine" not in piped
    assert '-hmac "${LEDGER_WEBHOOK_SECRETS%%,*}"' in piped


def test_the_curl_line_signs_the_form_that_ingress_checks():
    assert 'printf %s "$T.$BODY"' in _described(LEDGER_SIGNED_FORM="timestamped")
    assert 'printf %s "$BODY"' in _described(LEDGER_SIGNED_FORM="either")


def test_the_curl_line_names_the_order_in_the_field_that_the_worker_reads():
    assert f'"shop_no":"ord_{_NOW_S}"' in _described(LEDGER_ORDER_FIELDS="shop_no,order")


def test_the_curl_line_reads_the_token_from_the_shell_and_does_not_show_it():
    text = _described(LEDGER_API_TOKEN="a hidden, long token")
    assert '-H "Authorization: Bearer $LEDGER_API_TOKEN"' in text
    assert "hidden" not in text


def test_the_printed_addresses_are_reachable_from_this_machine():
    text = _described(LEDGER_INGEST_HOST="0.0.0.0", LEDGER_INGEST_PORT="8001")  # noqa: S104
    assert "http://127.0.0.1:8001/webhooks/plexy" in text


def test_tls_is_refused_if_no_kafka_is_configured():
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_BOOTSTRAP"):
        plan({"LEDGER_KAFKA_TLS": "true"})
