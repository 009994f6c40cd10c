"""Passes a request that arrived whole straight to its handler, and the answer back, without ASGI.

Input: a request's headers and body. Output: an answer's bytes. Invariant: only simple requests take
this way; ``connection`` recognises them, and passes the others to the application.

ASGI's part in a request (a scope, events, messages, a cycle that takes an answer in pieces) and the
application's routing take longer than all of ingress' own work for a delivery.
"""

import asyncio
from typing import Final, Protocol

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ingest.answers import Headers, Received, Waiting


class Direct(Protocol):
    """A handler of whole requests to one path."""

    @property
    def path(self) -> bytes:
        """The path, as written in a request; the method is POST."""

    def take(self, headers: Headers, body: bytes) -> Response | Waiting:
        """Return the answer; header names are lower case, and the body has at most 16 KiB."""

    def failed(self) -> None:
        """Count a bug that was met on the way to an answer."""


# uvicorn sets this event when a cycle's connection ends; a direct handler does not wait for it.
_NEVER_AWAITED: Final = asyncio.Event()


class Exchange:
    """A request and its answer, with those parts of uvicorn's cycle that uvicorn itself uses."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")
    response_started = False

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NEVER_AWAITED


def encode(answer: Response, default_headers: Headers, *, closes: bool) -> bytes:
    """Return an answer as the bytes of HTTP/1.1; ``default_headers`` are the server's own."""
    headers = [*default_headers, *answer.raw_headers]
    if closes and (b"connection", b"close") not in headers:
        headers.append((b"connection", b"close"))
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%b\r\n%b" % (STATUS_LINE[answer.status_code], lines, bytes(answer.body))


class _ReceivedHead:
    """The shared head of the answers to accepted deliveries, which contains the current date."""

    def __init__(self) -> None:
        self._headers: Headers | None = None
        self._encoded = b""

    def __call__(self, default_headers: Headers, answer: Received) -> bytes:
        """Return the answer for a connection that stays open."""
        # uvicorn makes a new list each second, with the new date.
        if default_headers is not self._headers:
            self._headers = default_headers
            head, _, _ = encode(answer, default_headers, closes=False).partition(_PLACE)
            self._encoded = head
        return b"%b%b%d:%d\r\n\r\n%b" % (self._encoded, _PLACE, *answer.place, answer.body)


# This header comes last, so the bytes before its value are the same for all answers.
_PLACE: Final = b"ledger-position: "
encode_received: Final = _ReceivedHead()
