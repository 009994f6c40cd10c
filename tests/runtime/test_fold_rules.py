"""The name under which a worker joins its group contains its fold settings, and no secret."""

from typing import Any

import msgspec

from processors.settings import WorkerSettings
from runtime.fold_rules import FOLD, FoldRules, difference, protocols

SECRETS = {"LEDGER_VERIFY_SIGNATURES": "worker", "LEDGER_WEBHOOK_SECRETS": "whsec_1,whsec_2"}


def read(**values: Any) -> WorkerSettings:
    return WorkerSettings.from_environment(values)


def test_settings_that_do_not_change_the_fold_leave_the_name_alone():
    other = read(LEDGER_CHUNK_RECORDS="7", LEDGER_WEBHOOK_SECRETS="whsec_1", LEDGER_WEB_PORT="1")
    assert protocols(other) == protocols(read())


def test_each_secret_that_workers_check_with_makes_a_name_and_is_in_none():
    names = protocols(read(**SECRETS))
    assert len(set(names)) == 2
    assert not any("whsec" in name for name in names)
    assert set(names) & set(protocols(read(**SECRETS | {"LEDGER_WEBHOOK_SECRETS": "whsec_2"})))


def test_a_group_that_says_nothing_or_the_same_does_not_differ():
    settings = read(**SECRETS)
    assert not difference(settings, "")
    assert not any(difference(settings, agreed) for agreed in protocols(settings))


def test_a_group_of_a_release_that_says_nothing_of_its_settings_is_of_another_release():
    found = str(difference(read(), "faust"))
    assert "fold the log with other settings than these: they run another release" in found


def test_a_group_of_a_release_that_folds_otherwise_is_of_another_release():
    rules = msgspec.json.decode(protocols(read())[0], type=FoldRules)
    later = msgspec.json.encode(msgspec.structs.replace(rules, fold=FOLD + 1)).decode()
    assert "they run another release" in str(difference(read(), later))


def test_a_check_of_signatures_that_only_one_side_makes_is_named_alone():
    (agreed,) = protocols(read())
    told = difference(read(**SECRETS), agreed)
    assert told
    assert told.what.endswith("LEDGER_VERIFY_SIGNATURES is ingress there and worker here")


def test_secrets_are_named_only_where_not_one_of_them_is_in_common():
    settings = read(**SECRETS)
    (other,) = protocols(read(**SECRETS | {"LEDGER_WEBHOOK_SECRETS": "whsec_3"}))
    told = difference(settings, other)
    assert told
    assert told.what.endswith("than these: LEDGER_WEBHOOK_SECRETS has no secret in common")
    slower = {"LEDGER_WEBHOOK_SECRETS": "whsec_2", "LEDGER_SIGNATURE_TOLERANCE_S": "9"}
    (shared,) = protocols(read(**SECRETS | slower))
    told = difference(settings, shared)
    assert told
    assert told.what.endswith("than these: LEDGER_SIGNATURE_TOLERANCE_S is 9 there and 300 here")
