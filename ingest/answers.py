"""Builds the answers to deliveries: 200 with the place in the log, or a problem document.

Input: a problem's code and a sentence. Output: Starlette responses. Invariant: no answer contains a
secret, a body or a broker's address, because any sender can read the answer, and Plexy's dashboard
keeps it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ledger.records import Place
from runtime.problems import MEDIA_TYPE, Problem

Headers = list[tuple[bytes, bytes]]


class Waiting(NamedTuple):
    """A pending answer: ``settle`` returns the answer once ``done`` has succeeded or failed."""

    done: asyncio.Future[Place]
    settle: Callable[[], Response]


class Received(Response):
    """The answer to an accepted delivery, with the event's place in the log of record."""

    body = b'{"received": true}'
    status_code = 200
    background = None

    def __init__(self, place: Place) -> None:
        """Set only the place; Starlette's own ``__init__`` would double the cost of an answer."""
        self.place = place

    @property
    def raw_headers(self) -> Headers:  # type: ignore[override]
        """The headers, for ASGI; ``encode_received`` writes the same bytes itself."""
        return [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
            (b"ledger-position", b"%d:%d" % (self.place.partition, self.place.offset)),
        ]


# This is the only list of the codes and their statuses; programs may rely on both.
STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "malformed_request": 400,
        "malformed_json": 400,
        "invalid_envelope": 400,
        "control_characters": 400,
        "signature_missing": 401,
        "signature_malformed": 401,
        "signature_mismatch": 401,
        "timestamp_out_of_tolerance": 401,
        "token_missing": 401,
        "token_mismatch": 401,
        "not_found": 404,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "body_too_large": 413,
        "unsupported_media_type": 415,
        "head_too_large": 431,
        "internal_error": 500,
        "log_unavailable": 503,
        "overloaded": 503,
    }
)

# An answer 401 must contain a challenge (RFC 9110, 11.6.1). After an answer 408 or 413, the rest of
# the body is not read, so the connection can't carry another request.
HEADERS: Final[Mapping[int, Mapping[str, str]]] = MappingProxyType(
    {
        401: {"www-authenticate": "Plexy-Signature"},
        408: {"connection": "close"},
        413: {"connection": "close"},
        503: {"retry-after": "10"},
    }
)

# After a refusal, a sender may keep sending the body for this long; then the connection is cut.
_LINGER_S: Final = 1.0


class ProblemResponse(Response):
    """A problem document as a response; ``code`` is the problem's stable name."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        self.code = problem.code
        super().__init__(problem.encode(), problem.status, headers)


class _LingeringResponse(ProblemResponse):
    """The answer to a body that is still being sent.

    If the connection were closed at once, it would be reset, and the sender would see the reset
    instead of the answer. So the whole answer is sent first; then the rest of the body is read and
    dropped for a while.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


def problem(
    code: str, detail: str, *, field: str = "", headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """Return the answer for a code in ``STATUS``; ``headers`` extend the status's own headers."""
    status = STATUS[code]
    document = Problem(status=status, code=code, detail=detail, field=field)
    kind = _LingeringResponse if code == "body_too_large" else ProblemResponse
    return kind(document, {**HEADERS.get(status, {}), **(headers or {})})


# The answer after a bug in ingress: the server logs the traceback, which the sender never sees.
BUG: Final = problem("internal_error", "ingress failed unexpectedly; deliver the event again")


def encode(answer: Response, default_headers: Headers, *, closes: bool) -> bytes:
    """Return an answer encoded as HTTP/1.1; ``default_headers`` are the server's headers."""
    headers = [*default_headers, *answer.raw_headers]
    if closes and (b"connection", b"close") not in headers:
        headers.append((b"connection", b"close"))
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    status = HTTPStatus(answer.status_code)
    status_line = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    return b"%b%b\r\n%b" % (status_line, lines, bytes(answer.body))


class _ReceivedHead:
    """The head that all answers to accepted deliveries share; it contains the current date."""

    def __init__(self) -> None:
        self._headers: Headers | None = None
        self._encoded = b""

    def __call__(self, default_headers: Headers, answer: Received) -> bytes:
        """Return the answer for a connection that stays open."""
        # uvicorn creates a new list each second, with the new date.
        if default_headers is not self._headers:
            self._headers = default_headers
            head, _, _ = encode(answer, default_headers, closes=False).partition(_PLACE)
            self._encoded = head
        at = answer.place
        return b"%b%b%d:%d\r\n\r\n%b" % (
            self._encoded,
            _PLACE,
            at.partition,
            at.offset,
            answer.body,
        )


# This header is the last one, so the bytes before its value are the same for all answers.
_PLACE: Final = b"ledger-position: "
encode_received: Final = _ReceivedHead()
