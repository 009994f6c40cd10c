"""The short way of a request that arrived whole: to its handler and back, past ASGI.

In: a request's headers and body. Out: an answer's bytes. Never: a request that is anything but
simple: ``connection`` says which one is, and the others go to the application.

ASGI's part in a request (a scope, events, messages, a cycle that takes an answer in pieces) and the
application's routing take longer than all that ingress has to do for a delivery.
"""

import asyncio
from typing import Final, Protocol

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ingest.answers import Headers, Received, Waiting


class Direct(Protocol):
    """What takes the requests of one path that arrived whole."""

    @property
    def path(self) -> bytes:
        """The path, as it stands in a request; the method is POST."""

    def take(self, headers: Headers, body: bytes) -> Response | Waiting:
        """Return the answer; names of headers are lower case, the body has no more than 16 KiB."""

    def failed(self) -> None:
        """Hear that a step towards an answer met a bug."""


# uvicorn tells a cycle of its connection's end by this; a direct handler does not ask.
_NOBODY_WAITS: Final = asyncio.Event()


class Exchange:
    """A request and its answer: of uvicorn's cycle, what uvicorn itself asks for."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")
    response_started = False

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NOBODY_WAITS


def encode(answer: Response, default_headers: Headers, *, closes: bool) -> bytes:
    """Return an answer as the bytes of HTTP/1.1; ``default_headers`` are the server's own."""
    headers = [*default_headers, *answer.raw_headers]
    if closes and (b"connection", b"close") not in headers:
        headers.append((b"connection", b"close"))
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%b\r\n%b" % (STATUS_LINE[answer.status_code], lines, bytes(answer.body))


class _ReceivedHead:
    """What the answers to accepted deliveries have alike; the server's clock is in it."""

    def __init__(self) -> None:
        self._headers: Headers | None = None
        self._encoded = b""

    def __call__(self, default_headers: Headers, answer: Received) -> bytes:
        """Return the answer on a connection that is kept."""
        # uvicorn makes a new list each second, with the new date.
        if default_headers is not self._headers:
            self._headers = default_headers
            head, _, _ = encode(answer, default_headers, closes=False).partition(_PLACE)
            self._encoded = head
        return b"%b%b%d:%d\r\n\r\n%b" % (self._encoded, _PLACE, *answer.place, answer.body)


# It comes last of an answer's headers, and before its place everything is the same.
_PLACE: Final = b"ledger-position: "
encode_received: Final = _ReceivedHead()
