"""Ingress starts only if its settings are valid, and if it has a secret or needs no signatures."""

import pytest

from ingest.settings import IngestSettings
from ledger.signature import SignedForm
from runtime.settings import SettingsError, describe


def test_the_secret_is_the_only_setting_that_must_be_set():
    settings = IngestSettings.from_environment({"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_1"})
    assert (settings.ingest_host, settings.ingest_port) == ("127.0.0.1", 8000)
    assert (settings.signed_form, settings.signature_tolerance_s) == (SignedForm.EITHER, 300)
    assert (settings.max_body_bytes, settings.answer_within_s) == (2**20, 10)
    assert not settings.allow_unsigned


def test_several_secrets_are_separated_by_commas():
    settings = IngestSettings.from_environment(
        {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_1, whsec_test_key_2,"}
    )
    assert [s.reveal() for s in settings.webhook_secrets] == [
        "whsec_test_key_1",
        "whsec_test_key_2",
    ]
    assert "whsec" not in repr(settings)


@pytest.mark.parametrize("value", ["", " ", ","])
def test_without_a_secret_ingress_refuses_to_start_and_says_what_to_set(value):
    with pytest.raises(SettingsError, match=r"LEDGER_WEBHOOK_SECRETS.*LEDGER_ALLOW_UNSIGNED"):
        IngestSettings.from_environment({"LEDGER_WEBHOOK_SECRETS": value})


def test_without_a_secret_ingress_starts_if_unsigned_deliveries_are_allowed():
    settings = IngestSettings.from_environment({"LEDGER_ALLOW_UNSIGNED": "true"})
    assert settings.allow_unsigned


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_BYTES", "0"),
        ("MAX_BODY_BYTES", str(8 * 2**20 + 1)),
        ("MAX_IN_FLIGHT", "0"),
        ("ANSWER_WITHIN_S", "30"),
        ("SIGNED_FORM", "header"),
        ("SIGNATURE_TOLERANCE_S", "-1"),
        ("INGEST_PORT", "70000"),
        ("ALLOW_UNSIGNED", "perhaps"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_the_setting(name, value):
    with pytest.raises(SettingsError, match=f"LEDGER_{name}: .*{value}"):
        IngestSettings.from_environment(
            {"LEDGER_WEBHOOK_SECRETS": "whsec_of_the_test", f"LEDGER_{name}": value}
        )


def test_the_metrics_never_share_the_port_that_the_internet_reaches():
    given = {"LEDGER_WEBHOOK_SECRETS": "whsec_of_the_test", "LEDGER_INGEST_PORT": "8100"}
    with pytest.raises(SettingsError, match="LEDGER_INGEST_METRICS_PORT=8100 is LEDGER_INGEST"):
        IngestSettings.from_environment({**given, "LEDGER_INGEST_METRICS_PORT": "8100"})
    assert IngestSettings.from_environment(given).ingest_metrics_port is None


def test_the_settings_of_the_connection_to_kafka_are_also_checked():
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_USERNAME"):
        IngestSettings.from_environment(
            {"LEDGER_WEBHOOK_SECRETS": "whsec_of_the_test", "LEDGER_KAFKA_SASL_MECHANISM": "PLAIN"}
        )


def test_every_setting_has_a_description_that_does_not_end_with_a_full_stop():
    for line in describe(IngestSettings):
        assert line.text, line.variable
        assert not line.text.endswith("."), line.variable
