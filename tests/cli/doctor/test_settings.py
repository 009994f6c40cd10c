"""The environment: what can't be read, what nobody reads, and what does not protect the ledger."""

import pytest

from cli.doctor.findings import Level
from cli.doctor.settings import check_settings
from cli.settings import DEVELOPMENT_SECRET
from tests.cli.doctor.conftest import one, only, with_settings


def test_of_good_settings_there_is_nothing_to_say(patient):
    (finding,) = check_settings(patient)
    assert finding.level is Level.OK
    assert "worker" in finding.what


def test_a_value_that_cannot_be_read_is_named_once_with_all_programs_that_read_it(patient):
    found = check_settings(with_settings(patient, web_port="eighty"))
    finding = one(Level.PROBLEM, found)
    assert "LEDGER_WEB_PORT" in finding.what
    assert "'eighty'" in finding.what
    for program in ("worker", "run", "simulate", "rebuild"):
        assert program in finding.remedy
    assert "ingest" not in finding.remedy


def test_of_programs_that_are_not_named_the_settings_do_not_matter(patient):
    assert only(Level.PROBLEM, check_settings(with_settings(patient, "ingest", web_port="x"))) == []


def test_a_missing_secret_is_named_for_who_needs_it(patient):
    unset = with_settings(patient, webhook_secrets="")
    found = only(Level.PROBLEM, check_settings(unset))
    assert all(each.what.startswith("LEDGER_WEBHOOK_SECRETS is not set") for each in found)
    assert any("ingest" in each.remedy for each in found)
    assert any("audit" in each.remedy for each in found)
    # `run` has one of its own, for development.
    assert only(Level.PROBLEM, check_settings(with_settings(unset, "run"))) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("web_prot", "LEDGER_WEB_PORT"),
        ("kafka_boostrap", "LEDGER_KAFKA_BOOTSTRAP"),
        ("webhook_secret", "LEDGER_WEBHOOK_SECRETS"),
    ],
)
def test_a_variable_that_nobody_reads_is_named_with_the_one_that_may_be_meant(patient, name, meant):
    finding = one(Level.WARNING, check_settings(with_settings(patient, **{name: "1"})))
    assert f"LEDGER_{name.upper()} is set, and no program reads it" in finding.what
    assert meant in finding.remedy


def test_a_variable_like_no_other_is_named_too(patient):
    finding = one(Level.WARNING, check_settings(with_settings(patient, zzzz="1")))
    assert "LEDGER_ZZZZ" in finding.what
    assert "no setting has a name like it" in finding.remedy


@pytest.mark.parametrize("value", ["true", "TRUE", "1"])
def test_unsigned_deliveries_are_warned_of(patient, value):
    unsigned = with_settings(patient, "ingest", allow_unsigned=value, webhook_secrets="")
    assert "LEDGER_ALLOW_UNSIGNED" in one(Level.WARNING, check_settings(unsigned)).what


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        (f"whsec_mine,{DEVELOPMENT_SECRET}", "which everybody knows"),
        ("'whsec_mine'", "quotation mark"),
        ('whsec_mine,"whsec_other"', "quotation mark"),
    ],
)
def test_a_secret_that_protects_nothing_is_warned_of_and_not_shown(patient, secrets, told):
    finding = one(Level.WARNING, check_settings(with_settings(patient, webhook_secrets=secrets)))
    assert told in finding.what
    assert "whsec" not in finding.what + finding.remedy


def test_a_missing_token_is_warned_of_where_there_are_views(patient):
    unset = with_settings(patient, api_token="")
    assert "LEDGER_API_TOKEN" in one(Level.WARNING, check_settings(unset)).what
    assert only(Level.WARNING, check_settings(with_settings(unset, "ingest"))) == []


def test_a_name_by_which_nobody_finds_the_worker_is_named(patient):
    nobody = with_settings(patient, web_host="no-such-host.invalid")
    assert "LEDGER_WEB_HOST=no-such-host.invalid" in one(Level.PROBLEM, check_settings(nobody)).what
    itself = with_settings(patient, web_bind="0.0.0.0")  # noqa: S104
    finding = one(Level.WARNING, check_settings(itself))
    assert "LEDGER_WEB_HOST=127.0.0.1" in finding.what
    assert "a name under which they reach this one" in finding.remedy
