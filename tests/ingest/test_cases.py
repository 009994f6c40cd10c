"""A real server gives the expected answer to each case about HTTP."""

import asyncio
import json
import time
from http.client import responses

import pytest

from ledger.signature import sign
from tests.fakes import FakeLog
from tests.ingest.conftest import PATH, SECRET, signed
from tests.ingest.connections import CLOSING, connecting, said
from tests.ledger.cases.published import CASES, OVER_HTTP


def body_of(name: str) -> bytes:
    return CASES[name]["deliveries"][0].encode()


def digest(body: bytes) -> str:
    return sign(body, SECRET.encode(), 0).partition("v1=")[2]


def request(
    name: str,
    *,
    path: str = PATH,
    version: str = "1.1",
    signature: str = "",
    sent: bytes | None = None,
    **headers: str,
) -> bytes:
    """Return the request of a case; ``headers`` (`_` means `-`) replace the usual headers."""
    body = body_of(name)
    usual = {"host": "x", "content-length": str(len(body)), "content-type": "application/json"}
    usual["plexy-signature"] = signature or signed(body)["Plexy-Signature"]
    usual |= {key.replace("_", "-"): value for key, value in headers.items()}
    lines = "".join(f"{key}: {value}\r\n" for key, value in usual.items() if value)
    return f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + (body if sent is None else sent)


def in_chunks(body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


SPACED = json.dumps(json.loads(body_of("reserialised_by_proxy"))).encode()


def requests() -> dict[str, tuple[bytes, int]]:
    """Return each case's request, signed now, and the expected status of the answer."""
    now_s = int(time.time())
    two = f"t={now_s},v1={'0' * 64},v1={digest(body_of('sig_two_v1'))}"
    odd = f"v0=zz , v1={digest(body_of('sig_spaces_order_upper_v0')).upper()} , t={now_s}"
    in_ms = f"t={now_s * 1000},v1={digest(body_of('sig_t_ms'))}"
    return {
        "query_string": (request("query_string", path=f"{PATH}?a=1&b"), 200),
        "sig_two_v1": (request("sig_two_v1", signature=two), 200),
        "sig_spaces_order_upper_v0": (request("sig_spaces_order_upper_v0", signature=odd), 200),
        "sig_t_ms": (request("sig_t_ms", signature=in_ms), 401),
        "reserialised_by_proxy": (
            request("reserialised_by_proxy", sent=SPACED, content_length=str(len(SPACED))),
            401,
        ),
        "http10": (request("http10", version="1.0"), 200),
        "chunked": (
            request(
                "chunked",
                content_length="",
                transfer_encoding="chunked",
                sent=in_chunks(body_of("chunked")),
            ),
            200,
        ),
        "expect100": (request("expect100", expect="100-continue"), 200),
        "ctype application/json; charset=utf-8": (
            request(
                "ctype application/json; charset=utf-8",
                content_type="application/json; charset=utf-8",
            ),
            200,
        ),
        "ctype Application/JSON": (
            request("ctype Application/JSON", content_type="Application/JSON"),
            200,
        ),
        **{
            name: (request(name), status)
            for name, status in {
                "created_null": 200,
                "data_null": 200,
                "event_id_number": 200,
                "bigint_extra": 200,
                "trailing_garbage": 200,
                "oref_surrogate": 400,
                "nan_infinity": 400,
            }.items()
        },
    }


@pytest.mark.parametrize("name", requests())
async def test_each_case_gets_the_expected_answer(name):
    raw, status = requests()[name]
    log = FakeLog()
    async with connecting(log) as connect:
        answer = await said(connect, raw + (b"" if name == "http10" else CLOSING))
    assert b" %d %b\r\n" % (status, responses[status].encode()) in answer
    kept = [(record.topic, record.value) for record in log.records]
    if status == 200:
        assert kept == [("plexy.webhooks", body_of(name))]
    else:
        topic = [("plexy.rejected", body_of(name))] if name == "oref_surrogate" else []
        assert kept == topic
    if name == "sig_t_ms":
        assert b"milliseconds" in answer


async def test_if_a_delivery_arrives_many_times_at_once_every_copy_is_in_the_log():
    """All records have one key, so deduplication counts the delivery once."""
    log = FakeLog()
    async with connecting(log) as connect:
        raw = request("concurrent_12x") + CLOSING
        answers = await asyncio.gather(*(said(connect, raw) for _ in range(12)))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert {record.key for record in log.records} == {b"tconc"}


def test_every_case_about_http_has_a_request():
    assert set(requests()) | {"concurrent_12x"} >= OVER_HTTP
