"""Programs connect to Kafka in plain text, with TLS or SASL, and refuse incomplete settings."""

import ssl

import pytest
from aiokafka import AIOKafkaProducer

from runtime.kafka.connection import DEFAULT_BOOTSTRAP, KafkaSettings
from runtime.settings import SettingsError

CREDENTIALS = {
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_username": "ledger",
    "kafka_password": "pass_1",
}


def read(**values: str) -> KafkaSettings:
    named = {f"LEDGER_{name.upper()}": value for name, value in values.items()}
    return KafkaSettings.from_environment(named)


def test_the_default_is_a_plain_connection_to_this_machine():
    options = read().client_options()
    assert options == {
        "bootstrap_servers": [DEFAULT_BOOTSTRAP],
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


def test_several_brokers_are_separated_by_commas():
    assert read(kafka_bootstrap="a:1, b:2").bootstrap_servers == ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("values", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"kafka_tls": "true"}, "SSL"),
        (CREDENTIALS, "SASL_PLAINTEXT"),
        ({**CREDENTIALS, "kafka_tls": "true"}, "SASL_SSL"),
    ],
)
async def test_aiokafka_accepts_the_options_of_every_protocol(values, protocol):
    options = read(**values).client_options()
    assert options["security_protocol"] == protocol
    await AIOKafkaProducer(**options).stop()


def test_tls_verifies_the_broker():
    files = read(kafka_tls="true").tls_files()
    assert files
    context = files.current()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_credentials_reach_the_client_but_not_the_repr_of_the_settings():
    settings = read(**CREDENTIALS)
    options = settings.client_options()
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == (
        "SCRAM-SHA-512",
        "ledger",
    )
    assert options["sasl_plain_password"] == "pass_1"
    assert "pass_1" not in repr(settings)


@pytest.mark.parametrize("missing", ["kafka_username", "kafka_password"])
def test_a_sasl_mechanism_needs_a_user_and_a_password(missing):
    values = {name: value for name, value in CREDENTIALS.items() if name != missing}
    with pytest.raises(SettingsError, match=f"LEDGER_{missing.upper()}"):
        read(**values)


@pytest.mark.parametrize("alone", ["kafka_username", "kafka_password"])
def test_a_user_or_a_password_without_a_sasl_mechanism_is_refused(alone):
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_SASL_MECHANISM"):
        read(**{alone: "x"})


def test_an_unknown_mechanism_is_refused():
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_SASL_MECHANISM"):
        read(**{**CREDENTIALS, "kafka_sasl_mechanism": "GSSAPI"})


def test_a_ca_file_needs_tls_and_must_exist(tmp_path):
    absent = tmp_path / "ca.pem"
    with pytest.raises(SettingsError, match="LEDGER_KAFKA_TLS"):
        read(kafka_ca_file=str(absent))
    with pytest.raises(SettingsError, match=f"LEDGER_KAFKA_CA_FILE.*{absent}"):
        read(kafka_ca_file=str(absent), kafka_tls="true")


@pytest.mark.parametrize("prefix", ["", "shop-2.", "A_b"])
def test_a_prefix_of_characters_that_topic_names_allow_is_accepted(prefix):
    assert read(topic_prefix=prefix).topic_prefix == prefix


@pytest.mark.parametrize("prefix", ["a/b", "a b", "ü", "x" * 101])
def test_a_topic_prefix_that_kafka_does_not_allow_is_refused(prefix):
    with pytest.raises(SettingsError, match="LEDGER_TOPIC_PREFIX"):
        read(topic_prefix=prefix)


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"kafka_key_file": "key.pem", "kafka_tls": "true"}, "set LEDGER_KAFKA_CERTIFICATE_FILE"),
        ({"kafka_certificate_file": "certificate.pem"}, "set LEDGER_KAFKA_TLS=true"),
        ({**CREDENTIALS, "kafka_password_file": "password"}, "are both set: unset one"),
        (
            {"kafka_certificate_file": "absent.pem", "kafka_tls": "true"},
            "LEDGER_KAFKA_CERTIFICATE_FILE: there is no file absent.pem, or this user can't see it",
        ),
    ],
)
def test_files_that_contradict_other_settings_are_refused_with_a_remedy(values, remedy):
    with pytest.raises(SettingsError, match=remedy):
        read(**values)
