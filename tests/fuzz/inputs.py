"""Draws hostile requests from a seed: the requests' bodies, signatures and heads.

Input: a random generator. Output: a request, and the codes of the answers that are allowed for it.
A request is either valid or broken on purpose. ``attacks`` has the attacks that need time or many
connections.
"""

import gzip
import json
import time
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from ingest.settings import PAY_PATH
from ledger.signature import SignedForm, sign
from tests.ingest.conftest import PATH, SECRET

PAY_TOKEN: Final = "pay_token_of_the_fuzz_tests"
RETIRED: Final = "whsec_retired_long_ago"


class Case(NamedTuple):
    """One request, and the ``codes`` that its answer may have; an empty set allows every code.

    If ``ends`` is true, the server may also close the connection without an answer.
    """

    name: str
    raw: bytes
    codes: frozenset[str] = frozenset()
    ends: bool = False


TAKEN: Final = frozenset({"accepted"})
BODY_REFUSED: Final = frozenset({"malformed_json", "invalid_envelope", "control_characters"})
HEAD_REFUSED: Final = frozenset({"malformed_request", "head_too_large"})
TOKEN_REFUSED: Final = HEAD_REFUSED | {"token_missing", "token_mismatch"}
FORGERY_REFUSED: Final = HEAD_REFUSED | {
    "signature_missing",
    "signature_malformed",
    "signature_mismatch",
    "timestamp_out_of_tolerance",
}


def an_event(rng: Random, **changes: object) -> dict[str, object]:
    number = rng.randrange(10**9)
    data = {"id": f"pay_{number}", "amount": 1, "currency": "KZT", "status": "succeeded"}
    event = {"id": f"evt_fuzz_{number}", "type": "payment.succeeded", "created": 1, "data": data}
    return event | changes


def _with_data(rng: Random, data: bytes) -> bytes:
    return json.dumps(an_event(rng, data=0)).encode()[:-2] + data + b"}"


def _deep(rng: Random) -> bytes:
    depth = rng.choice([63, 64, 65, 200, 990, 1000, 5000, 100_000])
    opened, closed = rng.choice([(b'{"a":', b"}"), (b"[", b"]"), (b'[{"a":', b"}]")])
    inner = rng.choice([b"1", b"", b"{}"])
    body = opened * depth + inner + closed * rng.choice([depth, depth - 1, 0])
    return body if rng.random() < 0.3 else _with_data(rng, body)


def _number(rng: Random) -> bytes:
    digits = b"9" * rng.choice([15, 16, 19, 20, 400, 4301, 50_000])
    sign_, tail = rng.choice([b"", b"-"]), rng.choice([b"", b".5", b"e5", b"e400", b"E-400", b"."])
    return _with_data(rng, b'{"id":"pay_1","amount":' + sign_ + digits + tail + b"}")


def _constant(rng: Random) -> bytes:
    words = [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"nan",
        b"True",
        b"undefined",
        b"0x10",
        b"+1",
        b"01",
    ]
    return _with_data(rng, b'{"amount":' + rng.choice(words) + b"}")


def _text(rng: Random) -> bytes:
    bad = [
        b"\xff",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\\u0000",
        b"\x00",
        b"\\x41",
        b"\n",
        "\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
    ]
    part = rng.choice(bad) * rng.choice([1, 1000])
    place = rng.choice([b'{"a":"%s"}', b'{"%s":1}', b'{"id":"%s"}', b'{"merchantReference":"%s"}'])
    body = _with_data(rng, place % part)
    return body.replace(b"evt_fuzz_", b"evt_" + part) if rng.random() < 0.3 else body


def _duplicates(rng: Random) -> bytes:
    body = json.dumps(an_event(rng)).encode()
    key = rng.choice([b'"id":"evt_other",', b'"id":1,', b'"data":{},', b'"created":null,'])
    return body[:1] + key * rng.choice([1, 5000]) + body[1:]


def _encoded(rng: Random) -> bytes:
    body = json.dumps(an_event(rng)).encode()
    ways: list[Callable[[bytes], bytes]] = [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text.decode().encode("utf-32-le"),
        gzip.compress,
        lambda text: text * 2,
        lambda text: text + b"\x00",
        lambda text: b" \t\r\n" * 1000 + text,
        lambda text: text[: rng.randrange(len(text))],
        lambda text: text.replace(b'"', b"'"),
        lambda _: b"",
    ]
    return rng.choice(ways)(body)


def _flipped(rng: Random) -> bytes:
    body = bytearray(json.dumps(an_event(rng)).encode())
    for _ in range(rng.choice([1, 1, 3, 30])):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return bytes(body)


def _wrong_types(rng: Random) -> bytes:
    values: list[object] = [
        None,
        True,
        -1,
        2**53,
        2**64,
        1.5,
        "",
        "x" * 513,
        "é" * 300,
        [],
        {},
        [[]],
    ]
    field = rng.choice(["id", "type", "created", "data"])
    return json.dumps(an_event(rng, **{field: rng.choice(values)})).encode()


def _control(rng: Random) -> bytes:
    """Return an event whose id or type has a control character, either escaped or raw."""
    character = chr(rng.choice([0x00, 0x0A, 0x1B, 0x1F, 0x7F, 0x85, 0x9F]))
    changes = {rng.choice(["id", "type"]): f"evt_{character}{rng.randrange(10**9)}"}
    return json.dumps(an_event(rng, **changes), ensure_ascii=rng.random() < 0.5).encode()


def _noise(rng: Random) -> bytes:
    return rng.randbytes(rng.choice([1, 10, 1000, 100_000]))


BODIES: Final = (
    _deep,
    _number,
    _constant,
    _text,
    _duplicates,
    _encoded,
    _flipped,
    _wrong_types,
    _control,
    _noise,
)


def _forged(rng: Random, body: bytes) -> bytes:
    """Return a signature that must never be accepted."""
    now = int(time.time())
    right = sign(body, SECRET.encode(), now).rpartition("=")[2]
    forgeries = [
        b"",
        rng.randbytes(rng.choice([1, 60, 3000])).translate(None, b"\r\n\0"),
        sign(body, RETIRED.encode(), now).encode(),
        sign(body, RETIRED.encode(), now, SignedForm.TIMESTAMPED).encode(),
        sign(body + b" ", SECRET.encode(), now).encode(),
        sign(body, SECRET.encode(), now - 301 - rng.randrange(10**6)).encode(),
        sign(body, SECRET.encode(), now + 310 + rng.randrange(10**6)).encode(),
        sign(body, SECRET.encode(), now - 1, SignedForm.TIMESTAMPED)
        .replace(f"t={now - 1}", f"t={now}")
        .encode(),
        f"t={now},v1={right[:-1]}".encode(),
        f"t={now},v1={right}0".encode(),
        f"t={now},v0={right}".encode(),
        f"t={now}," + "v1=" + "0" * 64,
        f"t={now}.0,v1={right}".encode(),
        f"t={now},t={now},v1={right}".encode(),
        f"v1={right}".encode(),
        f"t={'9' * 5000},v1={right}".encode(),
        f"t={now}".encode() + b",v1=" + b"f" * 64 + b",v1=" * rng.choice([1, 50, 500]),
        (f"t={now}" + f",v1={'f' * 64}" * rng.choice([50, 190])).encode(),
    ]
    chosen = rng.choice(forgeries)
    return chosen.encode() if isinstance(chosen, str) else chosen


def _good(body: bytes, rng: Random) -> bytes:
    form = rng.choice([SignedForm.BODY, SignedForm.TIMESTAMPED])
    return sign(body, SECRET.encode(), int(time.time()), form).encode()


def _post(body: bytes, signature: bytes, *more: bytes, framing: bytes | None = None) -> bytes:
    length = b"Content-Length: %d" % len(body) if framing is None else framing
    lines = [
        b"POST " + PATH.encode() + b" HTTP/1.1",
        b"Host: x",
        b"Content-Type: application/json",
        *([b"Plexy-Signature: " + signature] if signature else []),
        *more,
        *([length] if length else []),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def signed_body(rng: Random) -> Case:
    """Draw a hostile body with a valid signature, which ingress may accept or refuse."""
    make = rng.choice(BODIES)
    body = make(rng)
    more = [b"Content-Encoding: gzip"] if rng.random() < 0.1 else []
    raw = _post(body, _good(body, rng), *more)
    codes = frozenset({"unsupported_media_type"}) if more else TAKEN | BODY_REFUSED
    return Case(f"signed{make.__name__}", raw, codes)


def forged_signature(rng: Random) -> Case:
    """Draw a signature that was not computed from the secret, the body and the current time."""
    body = rng.choice([json.dumps(an_event(rng)).encode(), rng.choice(BODIES)(rng)])
    return Case("forged", _post(body, _forged(rng, body)), FORGERY_REFUSED)


def good_delivery(rng: Random) -> Case:
    """Draw a good delivery, which must be accepted despite the hostile requests."""
    body = json.dumps(an_event(rng)).encode()
    return Case("good", _post(body, _good(body, rng)), TAKEN)


def notification(rng: Random) -> Case:
    """Draw a hostile notification of the Pay API, with the right token or a wrong authorization."""
    hostile = rng.choice(BODIES)(rng)
    body = rng.choice([hostile, hostile.replace(b'"type"', b'"name"')])
    is_known = rng.random() < 0.7
    tokens = [
        b"Basic " + PAY_TOKEN.encode(),
        b"Bearer",
        b"Bearer " + PAY_TOKEN[:-1].encode(),
        b"Bearer " + PAY_TOKEN.encode() * rng.choice([2, 300]),
        b"Bearer \xff\xfe",
    ]
    given = b"Bearer " + PAY_TOKEN.encode() if is_known else rng.choice(tokens)
    raw = _post(body, b"", b"Authorization: " + given)
    raw = raw.replace(PATH.encode(), PAY_PATH.encode(), 1)
    return Case("notification", raw, TAKEN | BODY_REFUSED if is_known else TOKEN_REFUSED)


def chunked(rng: Random) -> Case:
    """Draw a body in HTTP chunks, which are valid or broken."""
    body = json.dumps(an_event(rng)).encode()
    cut = rng.randrange(len(body))
    good = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (cut, body[:cut], len(body) - cut, body[cut:])
    if cut == 0:
        good = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    bad = [
        b"zz\r\n" + body,
        b"-1\r\n" + body,
        b"ffffffffffffffffff\r\n" + body,
        good.replace(b"\r\n0\r\n", b"\r\n0;" + b"e" * 100_000 + b"\r\n"),
        good[:-2] + b"Trailer: x\r\n" * 1000 + b"\r\n",
        b"1;" + b"x=y;" * 10_000 + b"\r\n" + body,
    ]
    sent = rng.choice([good, rng.choice(bad)])
    raw = _post(b"", _good(body, rng), framing=b"Transfer-Encoding: chunked") + sent
    if sent is good:
        return Case("chunked", raw, TAKEN)
    return Case("chunked_broken", raw, ends=True)


def trailers(rng: Random) -> Case:
    """Draw a chunked delivery with trailers, which ingress must ignore."""
    body = json.dumps(an_event(rng)).encode()
    good = _good(body, rng)
    names = [
        b"Content-Type: text/plain",
        b"Plexy-Signature: t=1,v1=00",
        b"Plexy-Signature: " + good,
        b"Host: a:b:c",
        b"Expect: 100-continue",
        b"X: " + b"y" * rng.choice([0, 1000, 16_000]),
    ]
    lines = b"".join(name + b"\r\n" for name in rng.sample(names, rng.choice([1, 2])))
    sent = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, lines)
    signed = rng.random() < 0.7
    raw = _post(b"", good if signed else b"", framing=b"Transfer-Encoding: chunked") + sent
    return Case("trailers", raw, TAKEN if signed else frozenset({"signature_missing"}))


def bad_framing(rng: Random) -> Case:
    """Draw a delivery whose length is wrong, or is given twice, as in request smuggling."""
    body = json.dumps(an_event(rng)).encode()
    size = len(body)
    framings = [
        b"Content-Length: %d\r\nContent-Length: %d" % (size, size),
        b"Content-Length: %d\r\nContent-Length: %d" % (size, size + 1),
        b"Content-Length: %d\r\nTransfer-Encoding: chunked" % size,
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: -1",
        b"Content-Length: +%d" % size,
        b"Content-Length: 0x%x" % size,
        b"Content-Length: " + b"0" * rng.choice([1, 5000]) + b"%d" % size,
        b"Content-Length: " + b"9" * rng.choice([19, 20, 5000]),
        b"Content-Length: %d, %d" % (size, size),
        b"Content-Length: %d" % (size - rng.randrange(1, size)),
        b"Content-Length: %d" % (size + rng.randrange(1, 1000)),
        b"Content-Length : %d" % size,
        b"Content-Length:",
        b"",
    ]
    return Case("framing", _post(body, _good(body, rng), framing=rng.choice(framings)), ends=True)


def bad_head(rng: Random) -> Case:
    """Draw request lines and headers that are malformed, too many or too long."""
    heads = [
        b"GET\r\n\r\n",
        b"\r\n" * rng.choice([1, 10_000]),
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
        b"GET //x/../.. HTTP/1.1\r\n\r\n",
        b"GET /%00%ff%zz HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * rng.choice([8000, 70_000, 500_000]) + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz?" + b"a=b&" * rng.choice([1000, 100_000]) + b" HTTP/1.1\r\n\r\n",
        b"X" * rng.choice([20, 100_000]) + b" / HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * rng.choice([99, 500, 50_000]) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nA: " + b"b" * rng.choice([10_000, 500_000]) + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"a" * rng.choice([10_000, 500_000]) + b": b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: \x00\x01\x7f\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        _post(b"{}", b"", b"Connection: upgrade", b"Upgrade: h2c"),
        b"GET /webhooks/plexy HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
        rng.randbytes(rng.choice([1, 100, 10_000])),
    ]
    raw = rng.choice(heads)
    if b"Host:" not in raw:
        # Without this header, nearly all of these requests would be refused for the missing Host.
        raw = raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: x\r\n", 1)
    return Case("head", raw, ends=True)


def bad_host(rng: Random) -> Case:
    """Draw a good delivery whose Host headers do not name exactly one host."""
    hosts = [
        b"",
        b"Host:\r\n",
        b"Host: a:b:c\r\n",
        b"Host: x:99999999999999999999\r\n",
        b"Host: [::1\r\n",
        b"Host: a b\r\n",
        b"Host: x/webhooks\r\n",
        b"Host: u:p@x\r\n",
        b"Host: \xff\xfe\r\n",
        b"Host: " + b"[" * rng.choice([1, 10_000]) + b"\r\n",
        b"Host: x\r\nHost: x\r\n",
        b"Host: x\r\nHOST: a:b:c\r\n",
    ]
    body = json.dumps(an_event(rng)).encode()
    raw = _post(body, _good(body, rng)).replace(b"Host: x\r\n", rng.choice(hosts), 1)
    return Case("host", raw, frozenset({"malformed_request"}))


KINDS: Final = (
    signed_body,
    forged_signature,
    good_delivery,
    notification,
    chunked,
    trailers,
    bad_framing,
    bad_host,
    bad_head,
)


def draw(rng: Random) -> Case:
    """Draw the next request."""
    return rng.choice(KINDS)(rng)
