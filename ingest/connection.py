"""Serves one connection to ingress within limits; only this module touches uvicorn's protocol.

Input: bytes from any sender. Output: requests for the application, and a problem document for bytes
that are not a request.

Invariants: apart from its body, a request takes bounded memory, and trailers never count as
headers. If a request arrives too slowly, or the sender fetches an answer too slowly, the connection
ends (``connection_state``). If a process has too many connections, it closes the connection that
has kept it waiting longest.

Nearly every delivery arrives whole, in one read. A request that arrives whole goes to the
``direct`` handler, if the server has one for its path. For such a request, ASGI (a scope, events,
messages, a cycle that takes an answer in pieces) and the application's routing would take longer
than all other work on a delivery. Every other request goes to the application, as in uvicorn
itself.

uvicorn 0.54 with httptools limits neither the size nor the time of a request's head, chunk
extensions and trailers. It treats early trailers as headers, does not check Host, reads pipelined
requests faster than it answers them, and answers malformed requests in plain text.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Final, NoReturn, Protocol

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.answers import (
    BUG,
    Headers,
    ProblemResponse,
    Received,
    Waiting,
    encode,
    encode_received,
)
from ingest.connection_state import ConnectionState, Wait
from ingest.limits import LAST_WORDS, Fault, Limits
from ingest.load import SMALL_BYTES
from ingest.patience import Patience

# If the connection were closed at once, it would be reset, and the sender would see the reset
# instead of the answer.
_LINGER_S: Final = 1.0
# uvicorn sets this event when a cycle's connection ends; a direct handler does not wait for it.
_NEVER_AWAITED: Final = asyncio.Event()


class Direct(Protocol):
    """A handler of whole requests to one path."""

    @property
    def path(self) -> bytes:
        """The path as it is written in a request; the method is POST."""

    def take(self, headers: Headers, body: bytes) -> Response | Waiting:
        """Return the answer; header names are lower case, and the body has at most 16 KiB."""

    def failed(self) -> None:
        """Count a bug that prevented an answer."""


class Exchange:
    """A request and its answer, with the attributes that uvicorn reads from its own cycles."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")
    response_started = False

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NEVER_AWAITED


class _RefusedError(Exception):
    """Stops the parser; only an exception can stop it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def _fault_of(error: Exception) -> Fault:
    """Return the fault that ended the parsing; the parser wraps exceptions from our methods.

    If a frame kept the wrapped exception, the frame and the exception would form a cycle and keep
    the data in memory.
    """
    refused = error if isinstance(error, _RefusedError) else error.__context__
    return refused.fault if isinstance(refused, _RefusedError) else "malformed_request"


def _without_offer(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Yield a request's headers, but leave out the offer of another protocol (``Upgrade``)."""
    for name, value in headers:
        if name == b"connection":
            kept = [each for each in value.split(b",") if each.strip().lower() != b"upgrade"]
            yield name, b",".join(kept)
        elif name != b"upgrade":
            yield name, value


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection within limits; ``bounded_protocol`` creates the class for one server."""

    limits: ClassVar[Limits] = Limits()
    direct: ClassVar[Direct | None] = None
    # The connections that keep ingress waiting, the connection with the longest wait first.
    waiting: ClassVar[dict["BoundedProtocol", None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = ConnectionState()
        # The number of bytes read outside a body. The count restarts when the head of a request
        # ends, and when the request ends.
        self._overhead_bytes = 0
        self._chunks = 0
        self._dropped_bytes = 0
        # The part of the body that was read so far, if the request may still go to the direct
        # handler.
        self._held: bytes | None = None
        self._first_of_read = False
        # Whether the head offers another protocol. Such a head is parsed again without the offer.
        self._upgrading = False
        # The last answer on the connection. It is sent after the answers under way, once reading
        # has stopped.
        self._last_words: ProblemResponse | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; if there are too many, abort the connection with the longest wait."""
        super().connection_made(transport)
        self._patience = Patience(self.loop, transport.abort)
        self._watch()
        if len(self.connections) > self.limits.connections:
            next(iter(self.waiting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.waiting.pop(self, None)
        self._patience.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes of one read; bytes that are not a request end the connection."""
        self._first_of_read = True
        try:
            # The parser does not report where in a piece a request ends, so the count of a
            # request's bytes may be too low by up to one piece. So the pieces are short.
            for begin in range(0, len(data), self.limits.head_bytes):
                self._feed(data[begin : begin + self.limits.head_bytes])
        except httptools.HttpParserUpgrade:
            # The bytes after a CONNECT request may not be HTTP, so no more bytes are read.
            self._end(None)
        except (httptools.HttpParserError, _RefusedError) as error:
            self._hold_no_longer()
            self._end_by_fault(_fault_of(error))
        self._hold_no_longer()
        self._watch()

    def _feed(self, piece: bytes) -> None:
        """Parse a piece of a read, unless the connection has ended; count the bytes outside a body.

        The parser gathers a name or a value until it is complete. The parser skips chunk
        extensions, the zeros before the size of a chunk, and the line ends before a request. Only
        the count in this method includes all these bytes.
        """
        if self._state.now == "ended":
            return
        self._overhead_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_again(piece, upgrade)
        if self._overhead_bytes > self.limits.head_bytes:
            in_head = self._state.now != "body"
            self._refuse("head_too_large" if in_head else "framing_too_large")

    def _feed_again(self, rest: bytes, upgrade: httptools.HttpParserUpgrade | None) -> None:
        """Parse each request that offers another protocol as if it offered none (RFC 9110, 7.8).

        The parser does not read the body of such a request. So a new parser reads the request's
        head without the offer, and then the rest of the piece. The rest may contain another request
        with an offer.
        """
        while upgrade is not None:
            if not self._upgrading:
                raise upgrade
            rest = rest[upgrade.args[0] :]
            self._read_head_again()
            self._overhead_bytes += len(rest)
            try:
                self.parser.feed_data(rest)
                upgrade = None
            except httptools.HttpParserUpgrade as another:
                upgrade = another

    def _read_head_again(self) -> None:
        """Let a new parser read the head of a request without its offer of another protocol."""
        self._upgrading = False
        version = self.parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        head += b"".join(b"%b: %b\r\n" % header for header in _without_offer(self.headers))
        self.parser = httptools.HttpRequestParser(self)
        # uvicorn sets the same option.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head + b"\r\n")

    def on_message_begin(self) -> None:
        """Begin a request; `_hand_over` does the rest if the request goes to the application."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._chunks = self._dropped_bytes = 0
        self._state.move("begun")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header as uvicorn does; drop a trailer, which the parser reports like a header."""
        if self._state.now == "body":
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        if len(self.headers) > self.limits.headers:
            self._refuse("head_too_large")

    def on_headers_complete(self) -> None:
        """Hold the request until the end of this read, or hand it to the application."""
        self._upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._upgrading:
            return
        version, unanswered = self.parser.get_http_version(), self._state.unanswered
        fault = self.limits.fault_of_head(self.url, self.headers, version, unanswered)
        if fault is not None:
            self._refuse(fault)
        if self._may_be_direct():
            self._held = b""
        else:
            self._hand_over(b"")
        self._first_of_read = False
        self._state.move("head complete")
        self._overhead_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, or drop the piece if the request was already answered."""
        self._overhead_bytes -= len(body)
        if self._held is not None:
            self._held += body
            if len(self._held) > SMALL_BYTES:
                self._hand_over(self._held)
        elif self.cycle.response_started:
            self._dropped_bytes += len(body)
            if self._dropped_bytes > self.limits.dropped_bytes:
                self._refuse("too_much_dropped")
        else:
            super().on_body(body)

    def on_chunk_header(self) -> None:
        """Count one more chunk of the body."""
        self._chunks += 1
        if self._chunks > self.limits.chunks:
            self._refuse("too_many_chunks")

    def on_message_complete(self) -> None:
        """Answer a complete request, or tell the application that the body is complete."""
        if self._upgrading:
            return
        self._state.move("complete")
        self._overhead_bytes = 0
        keep_alive = self.parser.should_keep_alive()
        if self._held is not None:
            self._take(self._held, keep_alive=keep_alive)
        else:
            self.cycle.keep_alive &= keep_alive
            super().on_message_complete()
        if not keep_alive:
            # The parser skips all further bytes, even if only a trailer said `close`.
            self._end(None)

    def on_response_complete(self) -> None:
        """Continue with the next request; read more only if no request is left."""
        self.server_state.total_requests += 1
        self._state.answered()
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.flow.resume_reading()
        self._watch()

    def _may_be_direct(self) -> bool:
        """Return whether the direct handler takes this request if this read completes the request.

        If the sender pipelines, or does not fetch its answers, the application takes the request.
        """
        return (
            self.direct is not None
            and self.url == self.direct.path
            and self.parser.get_method() == b"POST"
            and self._first_of_read
            and self._state.unanswered == 0
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self.parser.should_upgrade()
        )

    def _hold_no_longer(self) -> None:
        """Hand over the held request, because the read ended before the request was complete."""
        if self._held is not None:
            self._hand_over(self._held)

    def _hand_over(self, body: bytes) -> None:
        """Give a request and the bytes of its body to the application, as uvicorn does."""
        self._held = None
        begun = (self.url, self.headers, self.expect_100_continue)
        # This call creates the scope, and resets the head that was read.
        super().on_message_begin()
        self.url, headers, self.expect_100_continue = begun
        self.headers += headers
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _take(self, body: bytes, *, keep_alive: bool) -> None:
        """Give a whole request to the direct handler."""
        self._held = None
        exchange = Exchange(keep_alive=keep_alive and self.parser.get_http_version() != "1.0")
        self.cycle = exchange  # type: ignore[assignment]
        self._go_on(exchange, partial(self.direct.take, self.headers, body))  # type: ignore[union-attr]

    def _go_on(self, exchange: Exchange, step: Callable[[], Response | Waiting]) -> None:
        """Take one step of the direct handler towards its answer; answer 500 after a bug."""
        try:
            answer = step()
        # A cancelled append is a bug too, because its record may or may not be in the log.
        except (Exception, asyncio.CancelledError) as error:
            self.logger.exception("Exception in the direct handler\n", exc_info=error)
            self.direct.failed()  # type: ignore[union-attr]
            answer = BUG
        if isinstance(answer, Waiting):
            settle = answer.settle
            answer.done.add_done_callback(lambda _done: self._go_on(exchange, settle))
        else:
            self._answer(exchange, answer)

    def _answer(self, exchange: Exchange, answer: Response) -> None:
        exchange.response_complete = True
        if not self.transport.is_closing():
            headers = self.server_state.default_headers
            closes = not exchange.keep_alive
            if type(answer) is Received and not closes:
                self.transport.write(encode_received(headers, answer))
            else:
                closes = closes or (b"connection", b"close") in answer.raw_headers
                self.transport.write(encode(answer, headers, closes=closes))
            if closes:
                self.transport.close()
        self.on_response_complete()

    def _refuse(self, fault: Fault) -> NoReturn:
        raise _RefusedError(fault)

    def _end_by_fault(self, fault: Fault) -> None:
        """End the connection; an incomplete request gets only the fault's answer."""
        words = LAST_WORDS[fault]
        if self._state.now == "body":
            if self.cycle.response_started:
                words = None
            else:
                self._drop_request()
        self._end(words)

    def _drop_request(self) -> None:
        """Take the latest request away from the application."""
        self._state.drop()
        if self.pipeline:
            self.pipeline.popleft()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _end(self, last_words: ProblemResponse | None) -> None:
        """Read nothing more; send ``last_words``, the last answer, after the answers under way."""
        self._state.move("end")
        self._last_words = last_words
        self.flow.pause_reading()

    def _watch(self) -> None:
        """Limit the time of a wait that has just begun; before a close, send the last answer."""
        wait = self._state.new_wait()
        if wait is None:
            return
        if wait == "close":
            if self.transport.is_closing():
                return
            self._send_last_words()
        self.waiting.pop(self, None)
        if wait != "answer":
            self.waiting[self] = None
        self._patience.restart(self._patience_s(wait))

    def _send_last_words(self) -> None:
        if self._last_words is not None:
            default_headers = self.server_state.default_headers
            self.transport.write(encode(self._last_words, default_headers, closes=True))
        self.transport.write_eof()
        # ``on_response_complete`` may have resumed reading, so pause reading again.
        self.flow.pause_reading()

    def _patience_s(self, wait: Wait) -> float:
        if wait == "next request":
            return self.timeout_keep_alive
        return _LINGER_S if wait == "close" else self.limits.stalled_after_s


def bounded_protocol(limits: Limits, direct: Direct | None = None) -> type[BoundedProtocol]:
    """Return the class of one server's connections, with its own limits and waiting connections."""
    members: dict[str, Any] = {"limits": limits, "direct": direct, "waiting": {}}
    return type("ServersProtocol", (BoundedProtocol,), members)
