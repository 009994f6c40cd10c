"""Senders get the right answers from a real server, and the log gets the right records."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import socket
import time

import pytest
import structlog
from structlog.testing import CapturingLogger

from ingest import webhooks
from ingest.load import BodyMemory
from ledger.signature import SignedForm, sign
from runtime.settings import Secret
from tests.fakes import until
from tests.ingest.conftest import PATH, SECRET, assert_problem, event, ingress, signed


async def test_a_signed_delivery_is_answered_200_and_kept_byte_for_byte(running):
    body = event("evt_ü/1", note="  spaces, ünïcode and \\u00fc stay as they came ").replace(
        b'"type":', b' "type"  :\n'
    )
    before_ms = int(time.time() * 1000)
    answer = await running.deliver(body, content_type="application/json; charset=utf-8")
    assert (answer.status_code, answer.content) == (200, b'{"received": true}')
    assert answer.headers["ledger-position"] == "0:0"
    assert answer.headers["content-type"] == "application/json"
    [record] = running.log.records
    headers = dict(record.headers)
    assert (record.topic, record.key) == ("plexy.webhooks", "evt_ü/1".encode())
    assert record.value == body
    assert headers["plexy-signature"].decode() == answer.request.headers["plexy-signature"]
    assert headers["content-type"] == b"application/json; charset=utf-8"
    assert before_ms <= int(headers["received-at-ms"]) == record.timestamp_ms
    assert [name for name, _ in record.headers] == [
        "plexy-signature",
        "received-at-ms",
        "content-type",
    ]


async def test_200_is_answered_only_after_the_acknowledgement(running):
    running.log.acknowledging.clear()
    answer = asyncio.create_task(running.deliver(event()))
    await until(lambda: running.log.waiting)
    await asyncio.sleep(0.05)
    assert not answer.done()
    running.log.acknowledging.set()
    assert (await answer).status_code == 200


@pytest.mark.parametrize("event_type", ["payment.failed", "payout.created", "anything else"])
async def test_every_type_of_event_is_accepted(running, event_type):
    assert (await running.deliver(event(type=event_type))).status_code == 200


async def test_the_content_of_data_is_not_validated(running):
    answer = await running.deliver(event(data={"amount": "a lot", "currency": 3, "id": None}))
    assert answer.status_code == 200


async def test_a_delivery_that_arrives_twice_is_kept_twice(running):
    body = event()
    assert [(await running.deliver(body)).status_code for _ in range(2)] == [200, 200]
    assert [record.value for record in running.log.records] == [body, body]


async def test_topics_carry_the_prefix():
    async with ingress(topic_prefix="shop2.") as started:
        await started.deliver(event())
        await started.deliver(b"{}")
        topics = [record.topic for record in started.log.records]
    assert topics == ["shop2.plexy.webhooks", "shop2.plexy.rejected"]


class TestSignature:
    async def test_a_missing_signature_is_401_and_nothing_is_kept(self, running):
        answer = await running.client.post(
            PATH, content=event(), headers={"Content-Type": "application/json"}
        )
        assert_problem(answer, 401, "signature_missing")
        assert answer.headers["www-authenticate"] == "Plexy-Signature"
        assert running.log.records == []

    @pytest.mark.parametrize("header", ["nonsense", "t=1", "t=x,v1=ab", "t=1,v1=zz", "v1=" * 3000])
    async def test_a_header_that_is_not_a_signature_is_malformed(self, running, header):
        answer = await running.deliver(event(), plexy_signature=header)
        assert_problem(answer, 401, "signature_malformed")

    async def test_a_signature_with_a_different_secret_is_a_mismatch(self, running):
        wrong = signed(event(), secret="whsec_test_key_other")["Plexy-Signature"]
        answer = await running.deliver(event(), plexy_signature=wrong)
        assert_problem(answer, 401, "signature_mismatch")
        assert running.log.records == []

    async def test_a_signature_of_a_different_body_is_a_mismatch(self, running):
        right = signed(event())["Plexy-Signature"]
        answer = await running.deliver(event() + b" ", plexy_signature=right)
        assert_problem(answer, 401, "signature_mismatch")

    @pytest.mark.parametrize("age_s", [310, -310])
    async def test_a_signature_from_a_distant_time_is_out_of_tolerance(self, running, age_s):
        answer = await running.deliver(
            event(), plexy_signature=signed(event(), age_s=age_s)["Plexy-Signature"]
        )
        assert_problem(answer, 401, "timestamp_out_of_tolerance")

    async def test_a_clock_that_may_be_wrong_is_logged_once_a_minute(self, running):
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                late = signed(event(), age_s=7200)["Plexy-Signature"]
                await running.deliver(event(), plexy_signature=late)
        (line,) = [each for each in lines if each["event"] == "clock_may_be_wrong"]
        assert line["seconds_off"] in {7200, 7201}
        assert "s before the time that this machine's clock shows" in line["reason"]
        assert line["remedy"].startswith("compare this machine's clock with a time server (NTP)")

    async def test_the_tolerance_is_a_setting(self):
        old = signed(event(), age_s=310)["Plexy-Signature"]
        async with ingress(signature_tolerance_s=400) as started:
            assert (await started.deliver(event(), plexy_signature=old)).status_code == 200

    @pytest.mark.parametrize(
        ("accepted", "sent", "status"),
        [
            (SignedForm.EITHER, SignedForm.BODY, 200),
            (SignedForm.EITHER, SignedForm.TIMESTAMPED, 200),
            (SignedForm.BODY, SignedForm.TIMESTAMPED, 401),
            (SignedForm.TIMESTAMPED, SignedForm.BODY, 401),
            (SignedForm.TIMESTAMPED, SignedForm.TIMESTAMPED, 200),
        ],
    )
    async def test_the_signed_form_is_a_setting(self, accepted, sent, status):
        header = sign(event(), SECRET.encode(), int(time.time()), sent)
        async with ingress(signed_form=accepted) as started:
            answer = await started.deliver(event(), plexy_signature=header)
        assert answer.status_code == status

    @pytest.mark.parametrize("secret", ["whsec_test_key_old", "whsec_new"])
    async def test_any_of_several_secrets_is_accepted(self, secret):
        secrets = (Secret("whsec_test_key_old"), Secret("whsec_new"))
        header = signed(event(), secret=secret)["Plexy-Signature"]
        async with ingress(webhook_secrets=secrets) as started:
            assert (await started.deliver(event(), plexy_signature=header)).status_code == 200

    @pytest.mark.parametrize("form", [SignedForm.BODY, SignedForm.TIMESTAMPED])
    async def test_a_retired_secret_is_refused_in_either_form(self, form):
        header = sign(event(), b"whsec_test_key_old", int(time.time()), form)
        async with ingress(webhook_secrets=(Secret("whsec_new"),)) as started:
            answer = await started.deliver(event(), plexy_signature=header)
            assert_problem(answer, 401, "signature_mismatch")
            assert started.log.records == []

    @pytest.mark.parametrize("form", [SignedForm.BODY, SignedForm.TIMESTAMPED])
    async def test_a_recorded_delivery_that_is_replayed_later_is_refused_in_either_form(
        self, running, form
    ):
        header = sign(event(), SECRET.encode(), int(time.time()) - 310, form)
        answer = await running.deliver(event(), plexy_signature=header)
        assert_problem(answer, 401, "timestamp_out_of_tolerance")
        assert running.log.records == []

    async def test_a_replay_cannot_have_a_newer_time_if_the_time_is_signed(self, running):
        now = int(time.time())
        recorded = sign(event(), SECRET.encode(), now - 310, SignedForm.TIMESTAMPED)
        fresh = recorded.replace(f"t={now - 310}", f"t={now}")
        answer = await running.deliver(event(), plexy_signature=fresh)
        assert_problem(answer, 401, "signature_mismatch")

    async def test_a_replay_with_a_newer_time_is_kept_if_the_time_is_not_signed(self, running):
        """In the form that Plexy's current page describes, the signature does not cover the time.

        The replay has the same event id, so it is counted once.
        """
        now = int(time.time())
        recorded = sign(event(), SECRET.encode(), now - 310, SignedForm.BODY)
        fresh = recorded.replace(f"t={now - 310}", f"t={now}")
        answer = await running.deliver(event(), plexy_signature=fresh)
        assert answer.status_code == 200
        assert [record.key for record in running.log.records] == [b"evt_1"]

    @pytest.mark.parametrize("form", [SignedForm.EITHER, SignedForm.BODY])
    async def test_a_signed_time_and_body_that_are_replayed_as_a_raw_body_are_not_kept(self, form):
        """The signature of `t.body` also fits the raw body `t.body`, for any `t` in the header."""
        now = int(time.time())
        recorded = sign(event(), SECRET.encode(), now - 10_000, SignedForm.TIMESTAMPED)
        body = b"%d.%b" % (now - 10_000, event())
        fresh = recorded.replace(f"t={now - 10_000}", f"t={now}")
        async with ingress(signed_form=form) as started:
            answer = await started.deliver(body, plexy_signature=fresh)
            # The signature is good, so the answer must not be 401.
            assert_problem(answer, 400, "malformed_json")
            assert started.log.records == []

    async def test_the_timestamped_form_accepts_no_replayed_body(self):
        now = int(time.time())
        recorded = sign(event(), SECRET.encode(), now, SignedForm.TIMESTAMPED)
        async with ingress(signed_form=SignedForm.TIMESTAMPED) as started:
            body = b"%d.%b" % (now, event())
            answer = await started.deliver(body, plexy_signature=recorded)
            assert_problem(answer, 401, "signature_mismatch")

    async def test_a_signature_header_that_is_repeated_with_another_value_is_malformed(
        self, running
    ):
        right = signed(event())["Plexy-Signature"]
        headers = [("content-type", "application/json"), ("plexy-signature", right)]
        headers.append(("plexy-signature", right.replace("t=", "t=1")))
        answer = await running.client.post(PATH, content=event(), headers=headers)
        assert_problem(answer, 401, "signature_malformed")

    async def test_headers_that_are_repeated_with_the_same_value_count_once(self, running):
        right = signed(event())["Plexy-Signature"]
        headers = 2 * [("content-type", "application/json"), ("plexy-signature", right)]
        answer = await running.client.post(PATH, content=event(), headers=headers)
        assert answer.status_code == 200

    async def test_the_signature_is_checked_before_the_envelope(self, running):
        answer = await running.deliver(b"not json", plexy_signature="t=1,v1=" + "0" * 64)
        assert_problem(answer, 401, "signature_mismatch")
        assert running.log.records == []

    async def test_the_signature_is_not_checked_if_unsigned_deliveries_are_allowed(self):
        async with ingress(allow_unsigned=True, webhook_secrets=()) as started:
            answer = await started.client.post(
                PATH, content=event(), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 200
            [record] = started.log.records
        assert dict(record.headers)["plexy-signature"] == b""


class TestEnvelope:
    @pytest.mark.parametrize(
        ("body", "code", "field"),
        [
            (event(nested=json.loads("[" * 70 + "]" * 70)), "malformed_json", None),
            (b'{"type": "t", "created": 1, "data": {}}', "invalid_envelope", "id"),
            (event(id=1.5), "invalid_envelope", "id"),
            (event(id=True), "invalid_envelope", "id"),
            (event(id=""), "invalid_envelope", "id"),
            (event(id="x" * 513), "invalid_envelope", "id"),
            (event(type=None), "invalid_envelope", "type"),
            (event("evt_\0"), "control_characters", "id"),
            (event("evt_\x9b"), "control_characters", "id"),
            (event(type="payment\n"), "control_characters", "type"),
        ],
    )
    async def test_the_answer_to_an_invalid_envelope_is_400_and_names_the_field(
        self, running, body, code, field
    ):
        document = assert_problem(await running.deliver(body), 400, code)
        assert document.get("field") == field
        assert [record.topic for record in running.log.records] == ["plexy.rejected"]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "malformed_json"),
            (b"{", "malformed_json"),
            (b"\xff\xfe", "malformed_json"),
            (b'{"id": NaN}', "malformed_json"),
            (b'{"a":' * 100_000, "malformed_json"),
            (b'{"id": 1, broken', "malformed_json"),
            (b"[]", "invalid_envelope"),
            (b"null", "invalid_envelope"),
        ],
    )
    async def test_a_body_that_is_not_a_json_object_is_400_and_not_kept(self, running, body, code):
        assert_problem(await running.deliver(body), 400, code)
        assert running.log.records == []

    async def test_an_id_with_control_characters_is_not_the_key_of_the_record(self, running):
        body = event("evt_\x1b[2J")
        await running.deliver(body)
        [record] = running.log.records
        assert record.key == hashlib.sha256(body).hexdigest().encode()
        assert dict(record.headers)["reason"] == b"control_characters"

    async def test_an_invalid_envelope_is_kept_under_its_id_with_the_reason(self, running):
        body = event("evt_9", type=7)
        document = assert_problem(await running.deliver(body), 400, "invalid_envelope")
        [record] = running.log.records
        headers = dict(record.headers)
        assert (record.key, record.value) == (b"evt_9", body)
        assert headers["reason"] == b"invalid_envelope"
        assert headers["detail"].decode() == document["detail"]
        assert headers["source-topic"] == b"http"
        assert {"plexy-signature", "received-at-ms", "content-type"} <= set(headers)

    @pytest.mark.parametrize(
        "body", [b"{}", b'{"id": "\\ud800"}', event(id="x" * 513), event(id="")]
    )
    async def test_an_envelope_without_a_readable_id_is_kept_under_the_hash_of_the_body(
        self, running, body
    ):
        await running.deliver(body)
        [record] = running.log.records
        assert record.key == hashlib.sha256(body).hexdigest().encode()

    async def test_an_invalid_envelope_that_cannot_be_kept_is_503_so_that_it_is_retried(
        self, running
    ):
        running.log.reason = "Kafka does not answer"
        assert_problem(await running.deliver(b"{}"), 503, "log_unavailable")

    async def test_a_compressed_body_is_not_json(self, running):
        body = gzip.compress(event())
        assert_problem(await running.deliver(body), 400, "malformed_json")


class TestAccepted:
    @pytest.mark.parametrize("created", [None, "2026-11-29T10:00:00Z", "now", 1.5, True, [], -1])
    async def test_ingress_accepts_any_time_because_the_worker_judges_it(self, running, created):
        assert (await running.deliver(event(created=created))).status_code == 200

    @pytest.mark.parametrize("data", [None, [], "text", 7])
    async def test_ingress_accepts_any_data_because_the_worker_judges_it(self, running, data):
        assert (await running.deliver(event(data=data))).status_code == 200

    async def test_an_integer_id_becomes_a_key_in_decimal_text(self, running):
        assert (await running.deliver(event(id=12345))).status_code == 200
        [record] = running.log.records
        assert record.key == b"12345"

    async def test_a_byte_order_mark_is_no_error_and_is_kept_in_the_record(self, running):
        body = b"\xef\xbb\xbf" + event()
        assert (await running.deliver(body)).status_code == 200
        [record] = running.log.records
        assert record.value == body

    async def test_a_number_out_of_range_in_an_unknown_field_is_accepted(self, running):
        body = event().replace(b'"amount"', b'"x": 1e400, "amount"')
        assert (await running.deliver(body)).status_code == 200

    async def test_an_object_with_half_a_surrogate_pair_is_kept_as_rejected(self, running):
        body = event().replace(b"pay_1", b"x\\ud83d")
        assert_problem(await running.deliver(body), 400, "malformed_json")
        [record] = running.log.records
        assert (record.topic, record.key, record.value) == ("plexy.rejected", b"evt_1", body)

    async def test_the_refusal_mentions_milliseconds_if_the_time_of_a_signature_is_in_milliseconds(
        self, running
    ):
        signature = sign(event(), SECRET.encode(), time.time_ns() // 1_000_000)
        answer = await running.deliver(event(), plexy_signature=signature)
        document = assert_problem(answer, 401, "timestamp_out_of_tolerance")
        assert "milliseconds" in document["detail"]

    async def test_a_good_signature_next_to_a_malformed_signature_is_accepted(self, running):
        good = signed(event())["Plexy-Signature"]
        for header in (f"{good},v1=zz", good.replace(",", ",v1=,")):
            answer = await running.deliver(event(), plexy_signature=header)
            assert answer.status_code == 200


class TestMediaType:
    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json ; x=y",
            "application/vnd.plexy.v1+json",
            "application/cloudevents+JSON; charset=utf-8",
            "",
        ],
    )
    async def test_json_media_types_are_accepted_in_upper_and_lower_case_and_with_parameters(
        self, running, content_type
    ):
        answer = await running.deliver(event(), content_type=content_type)
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/jsonx", "application/+json", "application/xml"]
    )
    async def test_a_media_type_other_than_json_is_415(self, running, content_type):
        answer = await running.deliver(event(), content_type=content_type)
        document = assert_problem(answer, 415, "unsupported_media_type")
        assert "Content-Type" in document["detail"]
        assert running.log.records == []

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
    async def test_an_encoded_body_is_415_and_the_answer_names_the_header(self, running, encoding):
        answer = await running.deliver(event(), content_encoding=encoding)
        document = assert_problem(answer, 415, "unsupported_media_type")
        assert "Content-Encoding" in document["detail"]
        assert running.log.records == []

    async def test_the_encoding_identity_is_accepted(self, running):
        assert (await running.deliver(event(), content_encoding="Identity")).status_code == 200

    async def test_a_body_that_has_no_media_type_is_treated_as_json(self, running):
        headers = {"Plexy-Signature": signed(event())["Plexy-Signature"]}
        answer = await running.client.post(PATH, content=event(), headers=headers)
        assert answer.status_code == 200
        [record] = running.log.records
        assert dict(record.headers)["content-type"] == b""


class TestSize:
    async def test_a_body_of_exactly_the_limit_is_accepted(self):
        body = event()
        async with ingress(max_body_bytes=len(body)) as started:
            assert (await started.deliver(body)).status_code == 200
            assert_problem(await started.deliver(body + b" "), 413, "body_too_large")

    async def test_by_default_one_mebibyte_is_accepted_and_one_byte_more_is_refused(self, running):
        body = event(padding="")
        body = body.replace(b'"padding": "', b'"padding": "' + b"x" * (2**20 - len(body)))
        assert (await running.deliver(body)).status_code == 200
        assert_problem(await running.deliver(body + b" "), 413, "body_too_large")

    async def test_the_limit_also_applies_to_a_body_without_a_content_length(self, running):
        async def chunks():
            for _ in range(40):
                yield b" " * 2**16

        headers = {"content-type": "application/json"}
        answer = await running.client.post(PATH, content=chunks(), headers=headers)
        assert_problem(answer, 413, "body_too_large")
        assert answer.headers["connection"] == "close"

    async def test_a_chunked_body_within_the_limit_is_accepted(self, running):
        async def chunks():
            for byte in event():
                yield bytes([byte])

        answer = await running.client.post(PATH, content=chunks(), headers=signed(event()))
        assert answer.status_code == 200
        assert running.log.records[0].value == event()

    async def test_a_content_length_beyond_the_limit_is_refused_before_the_body_arrives(
        self, running
    ):
        reader, writer = await running.connect()
        writer.write(
            b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        writer.close()


class TestTime:
    async def test_a_body_that_does_not_end_is_408_and_the_connection_is_closed(self):
        async with ingress(answer_within_s=1.0) as started:
            url = started.client.base_url
            with socket.create_connection((url.host, url.port)) as sender:
                sender.setblocking(False)
                began = time.monotonic()
                trickle = asyncio.create_task(_trickle(sender))
                answer = await _received(sender)
                assert time.monotonic() - began < 5
                await trickle
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert json.loads(body)["code"] == "request_timeout"

    async def test_the_answer_is_503_within_the_time_limit_if_kafka_does_not_acknowledge(self):
        async with ingress(answer_within_s=1.0) as started:
            started.log.acknowledging.clear()
            began = time.monotonic()
            answer = await started.deliver(event())
            assert time.monotonic() - began < 5
            assert_problem(answer, 503, "log_unavailable")
            assert int(answer.headers["retry-after"]) > 0

    async def test_a_sender_that_disconnects_causes_no_error(self, running, monkeypatch, caplog):
        lines = CapturingLogger()
        monkeypatch.setattr(webhooks, "_log", lines)
        _, writer = await running.connect()
        writer.write(
            b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await until(lambda: lines.calls)
        assert lines.calls[0].kwargs["outcome"] == "client_disconnected"
        assert (await running.deliver(event())).status_code == 200
        assert [r for r in caplog.records if r.levelname not in ("INFO", "DEBUG")] == []


async def _trickle(sender: socket.socket) -> None:
    """Send the bytes of an endless body until the connection is closed."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        await loop.sock_sendall(
            sender,
            b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n",
        )
        while True:
            await loop.sock_sendall(sender, b" ")
            await asyncio.sleep(0.05)


async def _received(sender: socket.socket) -> bytes:
    """Return everything that arrives until the connection is closed or reset.

    A byte that the sender sends after the server's close resets the connection. Even then, a socket
    returns the answer first. A stream of asyncio would raise the error of the reset instead.
    """
    loop, received = asyncio.get_running_loop(), b""
    with contextlib.suppress(ConnectionError):
        while some := await loop.sock_recv(sender, 4096):
            received += some
    return received


class TestLoad:
    async def test_a_body_that_has_not_arrived_does_not_count_as_a_delivery_in_flight(self):
        async with ingress(max_in_flight=1) as started:
            head = (
                b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1048576\r\n\r\n{"
            )
            writers = [(await started.connect())[1] for _ in range(100)]
            for writer in writers:
                writer.write(head)
            await asyncio.sleep(0.2)
            assert (await started.deliver(event())).status_code == 200
            for writer in writers:
                writer.transport.abort()

    async def test_large_bodies_without_a_signature_leave_room_for_small_bodies(self, monkeypatch):
        monkeypatch.setattr("ingest.webhooks.BodyMemory", lambda: BodyMemory(max_bytes=100_000))
        async with ingress() as started:
            _, writer = await started.connect()
            writer.write(
                b"POST /webhooks/plexy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1048576\r\n\r\n" + b" " * 99_990
            )
            await asyncio.sleep(0.2)
            assert_problem(await started.deliver(b" " * 50_000), 503, "overloaded")
            assert (await started.deliver(event())).status_code == 200
            writer.transport.abort()

    async def test_a_delivery_beyond_the_limit_is_503_and_the_deliveries_in_flight_continue(self):
        async with ingress(max_in_flight=2) as started:
            started.log.acknowledging.clear()
            taken = [asyncio.create_task(started.deliver(event())) for _ in range(2)]
            await until(lambda: started.log.waiting == 2)
            answer = await started.deliver(event())
            assert_problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            started.log.acknowledging.set()
            assert [(await one).status_code for one in taken] == [200, 200]
            assert (await started.deliver(event())).status_code == 200

    async def test_a_refused_delivery_releases_its_place(self):
        async with ingress(max_in_flight=1) as started:
            for _ in range(3):
                assert (await started.deliver(b"{")).status_code == 400
                assert (await started.deliver(event(), plexy_signature="x")).status_code == 401
            started.log.reason = "down"
            assert (await started.deliver(event())).json()["code"] == "log_unavailable"
            started.log.reason = None
            assert (await started.deliver(event())).status_code == 200


class TestLogLine:
    @pytest.fixture
    def lines(self, monkeypatch) -> CapturingLogger:
        captured = CapturingLogger()
        monkeypatch.setattr(webhooks, "_log", captured)
        return captured

    async def test_each_delivery_has_one_log_line(self, running, lines):
        await running.deliver(event("evt_1"))
        await running.deliver(event("evt_2", type=None))
        await running.deliver(event("evt_3"), plexy_signature="x")
        running.log.reason = "down"
        await running.deliver(event("evt_4"))
        seen = [(c.kwargs["outcome"], c.kwargs["event_id"], c.kwargs["type"]) for c in lines.calls]
        assert seen == [
            ("accepted", "evt_1", "payment.succeeded"),
            ("invalid_envelope", "evt_2", None),
            ("signature_malformed", None, None),
            ("log_unavailable", "evt_4", "payment.succeeded"),
        ]
        assert all(call.kwargs["ms"] >= 0 for call in lines.calls)

    async def test_the_log_line_has_neither_body_nor_signature_nor_secret(self, running, lines):
        answer = await running.deliver(event(note="in the body only"))
        seen = repr(lines.calls)
        for hidden in ("in the body only", SECRET, answer.request.headers["plexy-signature"]):
            assert hidden not in seen
