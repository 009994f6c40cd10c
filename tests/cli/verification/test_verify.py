"""`verify` applies its options and settings."""

from datetime import UTC, datetime

import pytest

from cli.errors import WrongOptionError
from cli.settings import VerifySettings
from cli.verification.verify import (
    VerifyOptions,
    _old_secrets,
    _since,
    _wanted,
    new_truth,
)
from ledger.signature import sign
from ledger.verification.differences import Difference, DifferenceKind, references
from runtime.settings import SettingsError
from tests.ledger.examples import refund, success

_SECRET = {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_now"}


class _Record:
    """A record of the log, signed with a secret."""

    def __init__(self, body: bytes, secret: str) -> None:
        self.key, self.value, self.partition, self.offset, self.timestamp = b"k", body, 0, 0, 0
        signature = sign(body, secret.encode(), 1000).encode()
        self.headers = [("plexy-signature", signature), ("received-at-ms", b"1000000")]


def _bad_signatures(settings: VerifySettings, old: list[bytes], *secrets: str) -> int:
    truth = new_truth(settings, old, {})
    for n, secret in enumerate(secrets):
        record = _Record(b"{}", secret)
        record.offset = n
        truth.read(0, [record])
    return truth.counts["signatures_bad"]


def test_only_current_secrets_and_old_secrets_and_the_secrets_in_the_file_are_good(tmp_path):
    environment = _SECRET | {"LEDGER_OLD_WEBHOOK_SECRETS": "whsec_test_key_1,whsec_test_key_2"}
    settings = VerifySettings.from_environment(environment)
    file = tmp_path / "old"
    file.write_text("whsec_test_key_3\n\n  whsec_4  \n")
    old = _old_secrets(VerifyOptions(old_secrets=file))
    good = [
        "whsec_test_key_now",
        "whsec_test_key_1",
        "whsec_test_key_2",
        "whsec_test_key_3",
        "whsec_4",
    ]
    assert _bad_signatures(settings, old, *good) == 0
    assert _bad_signatures(settings, [], *good) == 2
    assert _bad_signatures(settings, old, "whsec_test_key_5", "", "whsec_test_key_now") == 2


def test_verifying_without_a_secret_must_be_chosen_explicitly():
    with pytest.raises(SettingsError, match="LEDGER_WEBHOOK_SECRETS"):
        VerifySettings.from_environment({})
    settings = VerifySettings.from_environment({"LEDGER_ALLOW_UNSIGNED": "true"})
    assert _bad_signatures(settings, [], "anybody") == 0


def test_a_file_that_contains_no_secret_is_refused(tmp_path):
    (tmp_path / "old").write_text(" \n")
    with pytest.raises(WrongOptionError, match="the file has no secret"):
        _old_secrets(VerifyOptions(old_secrets=tmp_path / "old"))


class _Reader:
    """Finds the offsets of one topic by time."""

    class names:  # noqa: N801 - it replaces an attribute
        class topics:  # noqa: N801
            webhooks = "log"

    async def since(self, topic: str, time_ms: int) -> dict[int, int]:
        assert topic == "log"
        return {0: time_ms}


async def test_a_time_is_read_as_utc():
    given = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - the option has no time zone
    found = await _since(_Reader(), VerifyOptions(since=given))
    assert found == {0: int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1000)}
    assert await _since(_Reader(), VerifyOptions()) == {}


def _difference(subject: str, *facts, **more) -> Difference:
    return Difference(
        kind=DifferenceKind.ORDER_DIFFERS,
        subject=subject,
        detail="",
        events=references(facts),
        **more,
    )


def _kept(differences: list[Difference], options: VerifyOptions, since: dict[int, int]) -> str:
    truth = new_truth(VerifySettings.from_environment(_SECRET), (), {})
    truth.facts["pay_1"] = {"evt_1": success(order="ord_1")}
    truth._named["ord_1"] = ("pay_1",)
    return " ".join(each.subject for each in _wanted(differences, truth, options, since))


def test_dash_dash_since_leaves_out_only_differences_whose_events_are_all_older():
    differences = [
        _difference("old", success(offset=1)),
        _difference("both", success(offset=1), refund(offset=7)),
        _difference("new", refund(offset=5)),
        _difference("unknown"),
    ]
    assert _kept(differences, VerifyOptions(), {0: 5}) == "both new unknown"
    assert _kept(differences, VerifyOptions(), {}) == "old both new unknown"


def test_the_option_for_an_order_selects_the_differences_of_the_order_and_its_payments():
    differences = [
        _difference("named", order_id="ord_1"),
        _difference("paid", payment_id="pay_1"),
        _difference("another", order_id="ord_2", payment_id="pay_2"),
        _difference("nobody"),
    ]
    assert _kept(differences, VerifyOptions(order_id="ord_1"), {}) == "named paid"
