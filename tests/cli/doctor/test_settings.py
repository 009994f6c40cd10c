"""The check of the environment finds invalid, unknown and insecure settings."""

import pytest

from cli.doctor.checks import Level
from cli.doctor.settings import check_settings
from cli.settings import DEVELOPMENT_SECRET
from tests.cli.doctor.conftest import one, only, with_settings


def test_valid_settings_have_one_result(patient):
    (result,) = check_settings(patient)
    assert result.level is Level.OK
    assert "worker" in result.what


def test_an_invalid_value_is_reported_once_with_all_programs_that_read_it(patient):
    found = check_settings(with_settings(patient, web_port="eighty"))
    result = one(Level.PROBLEM, found)
    assert "LEDGER_WEB_PORT" in result.what
    assert "'eighty'" in result.what
    for program in ("worker", "run", "simulate", "rebuild"):
        assert program in result.remedy
    assert "ingest" not in result.remedy


def test_settings_of_other_programs_are_not_checked(patient):
    assert only(Level.PROBLEM, check_settings(with_settings(patient, "ingest", web_port="x"))) == []


def test_a_missing_secret_is_reported_for_each_program_that_needs_it(patient):
    unset = with_settings(patient, webhook_secrets="")
    found = only(Level.PROBLEM, check_settings(unset))
    assert all(each.what.startswith("LEDGER_WEBHOOK_SECRETS is not set") for each in found)
    assert any("ingest" in each.remedy for each in found)
    assert any("audit" in each.remedy for each in found)
    # `run` has a default secret for development.
    assert only(Level.PROBLEM, check_settings(with_settings(unset, "run"))) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("web_prot", "LEDGER_WEB_PORT"),
        ("kafka_boostrap", "LEDGER_KAFKA_BOOTSTRAP"),
        ("webhook_secret", "LEDGER_WEBHOOK_SECRETS"),
    ],
)
def test_an_unknown_variable_is_a_warning_that_names_the_most_similar_setting(patient, name, meant):
    result = one(Level.WARNING, check_settings(with_settings(patient, **{name: "1"})))
    assert f"LEDGER_{name.upper()} is set, but no program reads it" in result.what
    assert meant in result.remedy


def test_an_unknown_variable_that_resembles_no_setting_is_also_a_warning(patient):
    result = one(Level.WARNING, check_settings(with_settings(patient, zzzzzzzzzzzz="1")))
    assert "LEDGER_ZZZZZZZZZZZZ" in result.what
    assert "no setting has a similar name" in result.remedy


@pytest.mark.parametrize("value", ["true", "TRUE", "1"])
def test_unsigned_deliveries_are_a_warning(patient, value):
    unsigned = with_settings(patient, "ingest", allow_unsigned=value, webhook_secrets="")
    assert "LEDGER_ALLOW_UNSIGNED" in one(Level.WARNING, check_settings(unsigned)).what


def test_the_secret_from_the_documentation_causes_a_warning_that_does_not_show_the_secret(patient):
    secrets = f"whsec_test_key_mine,{DEVELOPMENT_SECRET}"
    result = one(Level.WARNING, check_settings(with_settings(patient, webhook_secrets=secrets)))
    assert "the secret that is public in the documentation" in result.what
    assert "whsec" not in result.what + result.remedy


def test_a_secret_in_quotes_is_a_problem_whose_text_does_not_show_the_secret(patient):
    quoted = with_settings(patient, webhook_secrets="'whsec_test_key_mine'")
    found = [each for each in check_settings(quoted) if each.level is Level.PROBLEM]
    assert found
    assert all("in quotes" in each.what and "whsec" not in each.what for each in found)


def test_a_missing_token_is_a_warning_for_programs_with_views(patient):
    unset = with_settings(patient, api_token="")
    assert "LEDGER_API_TOKEN" in one(Level.WARNING, check_settings(unset)).what
    assert only(Level.WARNING, check_settings(with_settings(unset, "ingest"))) == []


def test_a_host_name_that_does_not_lead_to_the_worker_is_reported(patient):
    nobody = with_settings(patient, web_host="no-such-host.invalid")
    assert "LEDGER_WEB_HOST=no-such-host.invalid" in one(Level.PROBLEM, check_settings(nobody)).what
    itself = with_settings(patient, web_bind="0.0.0.0")  # noqa: S104
    result = one(Level.WARNING, check_settings(itself))
    assert "LEDGER_WEB_HOST=127.0.0.1" in result.what
    assert "a name under which they reach this worker" in result.remedy
