"""`send` signs as Plexy does, and its errors name the remedy."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from cli.errors import DeliveryError, WrongOptionError
from cli.kafka.process import free_port
from cli.send import (
    EventOptions,
    SenderIdentity,
    build_event,
    deliver,
    encode,
    event_of,
    notification_of,
    send_event,
    signed_headers,
)
from cli.settings import DEVELOPMENT_SECRET, SendSettings
from ledger.envelope import decode_envelope
from ledger.events import Reading, decode_event
from ledger.signature import SignatureFault, SignedForm, verify

NOW_S = 1_795_900_000
_OPTIONS = EventOptions("payment.succeeded", "pay_1", "ord_1", None, 5, "USD", None, None, None)


class _Ingress(BaseHTTPRequestHandler):
    """Answers 200 to a delivery that is signed with ``whsec_test_key_right``, and otherwise 401.

    It also answers 200 to a notification with the bearer token ``token_of_the_file``.
    """

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] == "Bearer token_of_the_file":
            self.send_response(200)
            self.end_headers()
            return
        fault = verify(
            self.headers["Plexy-Signature"],
            body,
            secrets=[b"whsec_test_key_right"],
            now_s=float(self.headers["Plexy-Signature"].split(",")[0].removeprefix("t=")),
        )
        self.send_response(401 if fault else 200)
        self.end_headers()
        self.wfile.write(b'{"code":"%b"}' % fault.encode() if fault else b"{}")

    def log_message(self, *_arguments):
        """Log nothing."""


@pytest.fixture
def ingress() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Ingress) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/webhooks/plexy"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", [SignedForm.BODY, SignedForm.TIMESTAMPED])
def test_the_ledger_accepts_the_signature(form):
    body = encode(build_event("evt_1", "payment.succeeded", 1, {"id": "pay_ü"}))
    header = signed_headers(body, "whsec_test_key_1", at_s=1000, form=form)["Plexy-Signature"]
    assert verify(header, body, secrets=[b"whsec_test_key_1"], now_s=1000, form=form) is None
    assert (
        verify(header, body, secrets=[b"whsec_test_key_2"], now_s=1000) is SignatureFault.MISMATCH
    )
    late = verify(header, body, secrets=[b"whsec_test_key_1"], now_s=2000)
    assert late is SignatureFault.OUT_OF_TOLERANCE


def test_the_event_that_send_builds_is_read_as_a_payment_that_has_no_anomaly():
    envelope = decode_envelope(encode(event_of(_OPTIONS, now_s=NOW_S)))
    event = decode_event(envelope, 0, 0, NOW_S * 1000, Reading())
    assert (event.payment_id, event.order_reference, event.money.amount_minor) == (
        "pay_1",
        "ord_1",
        5,
    )
    assert (event.created, event.marks) == (NOW_S, ())


def test_a_refund_names_its_payment():
    options = EventOptions(
        "refund.succeeded", "pay_1", None, "re_1", 5, "USD", "evt_9", NOW_S, None
    )
    envelope = decode_envelope(encode(event_of(options, now_s=7)))
    event = decode_event(envelope, 0, 0, NOW_S * 1000, Reading())
    assert (event.event_id, event.created) == ("evt_9", NOW_S)
    assert (event.data_id, event.payment_id) == ("re_1", "pay_1")


def test_fields_given_with_dash_dash_data_override_the_fields_from_the_other_options():
    options = EventOptions(
        "payment.failed", "pay_1", None, None, 5, "USD", None, None, '{"amount": 1.5, "x": {}}'
    )
    assert event_of(options, now_s=7)["data"] == {
        "id": "pay_1",
        "amount": 1.5,
        "currency": "USD",
        "status": "failed",
        "x": {},
    }


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_a_value_of_dash_dash_data_that_is_not_an_object_is_refused(text):
    options = EventOptions("t", "pay_1", None, None, 5, "USD", None, None, text)
    with pytest.raises(WrongOptionError, match="--data"):
        event_of(options, now_s=7)


def test_each_event_has_a_new_id():
    ids = {event_of(_OPTIONS, now_s=7)["id"] for _ in range(10)}
    assert len(ids) == 10


def test_send_returns_whether_ingress_accepted_the_event(ingress, capsys):
    identity = SenderIdentity(secret="whsec_test_key_right")
    assert send_event(_OPTIONS, ingress, identity, {})
    given = {"LEDGER_WEBHOOK_SECRETS": "whsec_test_key_right,whsec_test_key_old"}
    assert send_event(_OPTIONS, ingress, SenderIdentity(), given)
    assert capsys.readouterr().out.count("\n200 {}") == 2
    assert not send_event(_OPTIONS, ingress, SenderIdentity(), {})
    output = capsys.readouterr().out
    assert '401 {"code":"signature_mismatch"}' in output
    assert DEVELOPMENT_SECRET not in output


def test_the_settings_give_the_address_of_ingress_if_no_address_is_given(ingress, capsys):
    port = str(urlsplit(ingress).port)
    identity = SenderIdentity(secret="whsec_test_key_right")
    assert send_event(_OPTIONS, None, identity, {"LEDGER_INGEST_PORT": port})
    assert "\n200 {}" in capsys.readouterr().out


def test_the_code_of_a_refusal_is_read_from_the_answer(ingress):
    body = encode(build_event("evt_1", "t", 1, {}))
    with httpx.Client(trust_env=False) as client:
        answer = deliver(client, ingress, body, signed_headers(body, "whsec_wrong"))
    assert (answer.status, answer.code, answer.accepted) == (401, "signature_mismatch", False)


def test_an_address_where_no_program_listens_is_a_clear_error():
    url = f"http://127.0.0.1:{free_port()}/webhooks/plexy"
    with pytest.raises(DeliveryError, match="no program listens at") as caught:
        send_event(_OPTIONS, url, SenderIdentity(), {})
    assert url in str(caught.value)
    assert "plexy-ledger run" in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1"])
def test_an_invalid_address_is_a_clear_error(url):
    with pytest.raises(DeliveryError, match="is not an address"):
        send_event(_OPTIONS, url, SenderIdentity(), {})


PAY = {"LEDGER_PAY_TOKENS": "token_of_the_tests_0123456789", "LEDGER_PAY_AMOUNTS": "major"}
CHARGE = EventOptions(None, "txn_1", "ord_1", None, 150050, "KZT", None, 1767225600, None)


def sent_by_pay(options, **changes):
    settings = SendSettings.from_environment(PAY | changes)
    return notification_of(options, settings, now_s=7)


def test_a_notification_is_a_charge_by_default_and_its_amount_is_in_the_configured_unit():
    told = sent_by_pay(CHARGE)
    assert told["name"] == "transaction.charged"
    assert told["data"] == {
        "id": "txn_1",
        "status": "charged",
        "amount": 1500.5,
        "processedAmount": 1500.5,
        "currency": "KZT",
        "updatedAt": "2026-01-01T00:00:00Z",
        "merchantReference": "ord_1",
    }
    assert sent_by_pay(CHARGE, LEDGER_PAY_AMOUNTS="minor")["data"]["amount"] == 150050


def test_a_refund_of_the_pay_api_is_a_transaction_that_names_its_parent():
    refund = msgspec.structs.replace(CHARGE, refund="txn_2")
    told = sent_by_pay(refund)
    assert told["name"] == "transaction.refunded"
    assert (told["data"]["id"], told["data"]["parentTransactionId"]) == ("txn_2", "txn_1")


@pytest.mark.parametrize("missing", ["LEDGER_PAY_TOKENS", "LEDGER_PAY_AMOUNTS"])
def test_a_notification_needs_a_token_and_the_unit_of_amounts(missing):
    given = {name: value for name, value in PAY.items() if name != missing}
    with pytest.raises(WrongOptionError, match=missing):
        send_event(CHARGE, "http://127.0.0.1:1", SenderIdentity(dialect="pay"), given)


def test_the_token_is_read_from_the_named_file_and_is_never_printed(ingress, tmp_path, capsys):
    file = tmp_path / "token"
    file.write_text("token_of_the_file\n")
    given = {"LEDGER_PAY_AMOUNTS": "minor"}
    assert send_event(CHARGE, ingress, SenderIdentity("pay", None, file), given)
    assert "token_of_the_file" not in capsys.readouterr().out
    with pytest.raises(WrongOptionError, match="--token-file"):
        send_event(CHARGE, ingress, SenderIdentity("pay", None, tmp_path / "none"), PAY)
