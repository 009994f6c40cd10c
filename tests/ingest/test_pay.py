"""The Pay API's path takes notifications from senders that know a token, and from nobody else."""

import json
import time
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from ingest import webhooks
from ingest.settings import PAY_PATH, IngestSettings
from ledger.dialects import pay_headers
from ledger.pay import PayAmounts
from runtime.settings import Secret, SettingsError
from tests.ingest.conftest import PATH, Ingress, assert_problem, ingress

TOKEN = "token_of_the_tests_0123456789"
NEXT_TOKEN = "next_token_of_the_tests_98765"


def notification(**changes: Any) -> bytes:
    """Return a notification's body; ``changes`` are fields of its data."""
    data = {
        "id": "txn_1",
        "amount": 990,
        "processedAmount": 990,
        "currency": "KZT",
        "status": "charged",
        "updatedAt": "2026-01-01T00:00:00Z",
        "merchantReference": "ord_1",
    }
    return json.dumps({"name": "transaction.charged", "data": data | changes}).encode()


def taking(*tokens: str, **changes: Any) -> Any:
    """Run an ingress that takes the Pay API's notifications with these tokens."""
    given = tuple(Secret(token) for token in tokens or (TOKEN,))
    return ingress(pay_tokens=given, pay_amounts=PayAmounts.MINOR, **changes)


async def notify(running: Ingress, body: bytes, *, token: str = TOKEN, **headers: str) -> Any:
    given = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return await running.client.post(PAY_PATH, content=body, headers=given | headers)


async def test_a_notification_is_kept_byte_for_byte_and_its_record_names_the_dialect():
    async with taking() as running:
        body = notification().replace(b'"data":', b' "data"  :\n')
        before_ms = int(time.time() * 1000)
        answer = await notify(running, body)
        assert (answer.status_code, answer.content) == (200, b'{"received": true}')
        [record] = running.log.records
    assert record.value == body
    assert record.key.startswith(b"pay:")
    assert tuple(record.headers[:3]) == pay_headers(PayAmounts.MINOR)
    assert [name for name, _ in record.headers[3:]] == ["received-at-ms", "content-type"]
    assert before_ms <= record.timestamp_ms


async def test_a_redelivery_has_the_key_of_the_first_delivery_but_a_later_update_has_another_key():
    async with taking() as running:
        await notify(running, notification())
        await notify(running, notification().replace(b", ", b","))
        await notify(running, notification(updatedAt="2026-01-01T00:00:01Z"))
        first, again, later = (record.key for record in running.log.records)
    assert first == again != later


async def test_without_tokens_in_the_settings_the_path_is_not_found():
    async with ingress() as running:
        assert_problem(await notify(running, notification()), 404, "not_found")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "token_missing"),
        ([("Authorization", "Basic dG9rZW4=")], "token_missing"),
        ([("Authorization", TOKEN)], "token_missing"),
        ([("Authorization", f"Bearer {TOKEN}")] * 2, "token_missing"),
        ([("Authorization", f"Bearer {TOKEN}x")], "token_mismatch"),
        ([("Authorization", f"Bearer {TOKEN[:-1]}")], "token_mismatch"),
        ([("Plexy-Signature", "t=1,v1=0")], "token_missing"),
    ],
)
async def test_a_sender_without_a_valid_token_is_refused_and_nothing_is_kept(headers, code):
    async with taking() as running:
        answer = await running.client.post(
            PAY_PATH,
            content=notification(),
            headers=[("Content-Type", "application/json"), *headers],
        )
        assert_problem(answer, 401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN[:-1] not in answer.text
        assert running.log.records == []


async def test_both_tokens_are_accepted_while_a_new_token_replaces_an_old_token():
    async with taking(TOKEN, NEXT_TOKEN) as running:
        for token in (TOKEN, NEXT_TOKEN):
            assert (await notify(running, notification(), token=token)).status_code == 200


async def test_on_the_path_of_signed_deliveries_a_token_does_not_replace_the_signature():
    async with taking() as running:
        given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        answer = await running.client.post(PATH, content=notification(), headers=given)
        assert_problem(answer, 401, "signature_missing")


async def test_the_limits_on_signed_deliveries_also_hold_for_notifications():
    async with taking(max_body_bytes=1000) as running:
        large = notification(description="x" * 1000)
        assert_problem(await notify(running, large), 413, "body_too_large")
        wrong = await notify(running, notification(), **{"Content-Type": "text/plain"})
        assert_problem(wrong, 415, "unsupported_media_type")
        running.log.reason = "Kafka is away"
        assert_problem(await notify(running, notification()), 503, "log_unavailable")
    async with taking(max_in_flight=1) as running:
        assert (await notify(running, notification())).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", "invalid_envelope"),
        (b"no JSON", "malformed_json"),
        (b'{"name": "transaction.charged"}', "invalid_envelope"),
        (b'{"name": "transaction.charged", "data": {}}', "invalid_envelope"),
        (b'{"data": {"id": "txn_1"}}', "invalid_envelope"),
    ],
)
async def test_a_body_that_lacks_a_name_or_a_transaction_is_refused(body, code):
    async with taking() as running:
        assert_problem(await notify(running, body), 400, code)
        kept = [record.topic for record in running.log.records]
    assert kept == (["plexy.rejected"] if body.startswith(b"{") else [])


async def test_a_refused_notification_is_kept_with_its_dialect_but_its_key_is_not_an_event_id():
    async with taking() as running:
        await notify(running, b'{"id": "evt_1", "name": "transaction.charged"}')
        [record] = running.log.records
    assert record.key != b"evt_1"
    assert tuple(record.headers[:3]) == pay_headers(PayAmounts.MINOR)


@pytest.mark.parametrize(
    "change",
    [
        {"updatedAt": None},
        {"updatedAt": "yesterday"},
        {"amount": "much", "processedAmount": None},
        {"status": "sublime"},
    ],
)
async def test_ingress_does_not_check_the_content_of_a_notification(change):
    async with taking() as running:
        assert (await notify(running, notification(**change))).status_code == 200


async def test_neither_the_logged_lines_nor_the_records_contain_a_token(monkeypatch):
    lines = CapturingLogger()
    monkeypatch.setattr(webhooks, "_log", lines)
    async with taking() as running:
        await notify(running, notification())
        await notify(running, notification(), token=NEXT_TOKEN)
        records = repr(running.log.records)
    assert [call.kwargs["outcome"] for call in lines.calls] == ["accepted", "token_mismatch"]
    assert "token_of_the_tests" not in repr(lines.calls) + records


@pytest.mark.parametrize("amounts", ["", "cents"])
def test_tokens_are_refused_with_a_remedy_if_the_unit_of_amounts_is_not_set(amounts):
    given = {"LEDGER_PAY_TOKENS": TOKEN, "LEDGER_PAY_AMOUNTS": amounts}
    with pytest.raises(SettingsError, match="LEDGER_PAY_AMOUNTS") as caught:
        IngestSettings.from_environment(given)
    assert TOKEN not in str(caught.value)


def test_a_shop_that_takes_only_the_pay_api_needs_no_signing_secret():
    settings = IngestSettings.from_environment(
        {"LEDGER_PAY_TOKENS": f"{TOKEN}, {NEXT_TOKEN}", "LEDGER_PAY_AMOUNTS": "major"}
    )
    assert [each.reveal() for each in settings.pay_tokens] == [TOKEN, NEXT_TOKEN]
    assert settings.pay_amounts is PayAmounts.MAJOR
    assert "token_of" not in repr(settings)


@pytest.mark.parametrize(
    "token", ["short", '"token_of_the_tests_in_quotes"', "Bearer token_of_the_tests", f"{TOKEN};x"]
)
def test_a_token_that_is_short_or_was_copied_with_other_text_is_refused_and_not_shown(token):
    given = {"LEDGER_PAY_TOKENS": token, "LEDGER_PAY_AMOUNTS": "minor"}
    with pytest.raises(SettingsError, match="LEDGER_PAY_TOKENS") as caught:
        IngestSettings.from_environment(given)
    assert token.strip('"') not in str(caught.value)
