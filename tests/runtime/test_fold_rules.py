"""A worker joins its group with a protocol name that contains its fold settings, but no secret."""

from typing import Any

import msgspec

from processors.settings import WorkerSettings
from runtime.fold_rules import FOLD, FoldRules, difference, protocols

SECRETS = {
    "LEDGER_VERIFY_SIGNATURES": "worker",
    "LEDGER_WEBHOOK_SECRETS": "whsec_test_key_1,whsec_test_key_2",
}


def read(**values: Any) -> WorkerSettings:
    return WorkerSettings.from_environment(values)


def test_settings_that_do_not_change_the_fold_do_not_change_the_protocol_name():
    other = read(
        LEDGER_CHUNK_RECORDS="7", LEDGER_WEBHOOK_SECRETS="whsec_test_key_1", LEDGER_WEB_PORT="1"
    )
    assert protocols(other) == protocols(read())


def test_each_secret_of_the_workers_adds_a_protocol_name_that_does_not_contain_the_secret():
    names = protocols(read(**SECRETS))
    assert len(set(names)) == 2
    assert not any("whsec" in name for name in names)
    assert set(names) & set(
        protocols(read(**SECRETS | {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_2"}))
    )


def test_there_is_no_difference_if_the_group_has_no_protocol_name_or_has_our_protocol_name():
    settings = read(**SECRETS)
    assert not difference(settings, "")
    assert not any(difference(settings, agreed) for agreed in protocols(settings))


def test_a_group_whose_protocol_name_has_no_settings_runs_a_different_release():
    found = str(difference(read(), "faust"))
    assert (
        "with settings that differ from this program's: the workers run a different release"
        in found
    )


def test_a_group_whose_protocol_name_has_a_different_fold_runs_a_different_release():
    rules = msgspec.json.decode(protocols(read())[0], type=FoldRules)
    later = msgspec.json.encode(msgspec.structs.replace(rules, fold=FOLD + 1)).decode()
    assert "the workers run a different release" in str(difference(read(), later))


def test_if_only_one_side_checks_signatures_no_other_difference_is_reported():
    (agreed,) = protocols(read())
    fault = difference(read(**SECRETS), agreed)
    assert fault
    assert fault.what.endswith("SIGNATURES is ingress in the group and worker in this program")


def test_secrets_are_a_difference_only_if_the_group_and_the_program_share_no_secret():
    settings = read(**SECRETS)
    (other,) = protocols(read(**SECRETS | {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_3"}))
    fault = difference(settings, other)
    assert fault
    assert fault.what.endswith("LEDGER_WEBHOOK_SECRETS lacks the secret that the group agreed on")
    slower = {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_2", "LEDGER_SIGNATURE_TOLERANCE_S": "9"}
    (shared,) = protocols(read(**SECRETS | slower))
    fault = difference(settings, shared)
    assert fault
    assert fault.what.endswith("TOLERANCE_S is 9 in the group and 300 in this program")


def test_workers_that_check_signatures_must_agree_on_whether_they_expect_bearer_records():
    (agreed,) = protocols(read(**SECRETS | {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_1"}))
    fault = difference(read(**SECRETS, LEDGER_PAY_AMOUNTS="minor"), agreed)
    assert fault
    assert fault.what.endswith("LEDGER_PAY_AMOUNTS is unset in the group and minor in this program")


def test_a_ledger_that_takes_only_the_pay_api_has_one_protocol_name_without_a_secret():
    only_pay = {"LEDGER_VERIFY_SIGNATURES": "worker", "LEDGER_PAY_AMOUNTS": "major"}
    (name,) = protocols(read(**only_pay))
    assert '"pay_amounts":"major"' in name
    assert "webhook_secrets" not in name
