"""One connection of the server's, with bounds: uvicorn's own has few.

In: bytes from anyone. Out: requests for the application; a problem document for what is no request.
Never: more of a head in memory than ``Limits`` allows, a request that takes for ever to arrive, an
answer that takes for ever to be fetched, or more connections than the process can have: where one
too many comes, the one that has kept us waiting longest goes.

A request that arrived whole in one read, as nearly every delivery does, goes to the ``direct``
handler, if the server has one for its path. Whatever is not that simple goes to the application, as
with uvicorn.

uvicorn 0.54 with httptools has no limit on a head's size or time, reads pipelined requests faster
than it answers them, and answers what is no HTTP in plain text. What a connection is waiting for::

    ``receiving`` ──(request whole)──▶ ``answering`` ──(answer written)──▶ ``idle``
         ▲ (connected)                                                       │ (next byte)
         └───────────────────────────────────────────────────────────────────┘
         └──(no request)──▶ ``ending``: the last words are out, nothing more is read
"""

import asyncio
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NoReturn, Self

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.answers import BUG, ProblemResponse, Received, Waiting, problem
from ingest.direct import Direct, Exchange, encode, encode_received
from ingest.load import SMALL_BYTES
from ingest.patience import Patience

# What a proxy in front usually allows as well; Plexy's own heads have some 500 bytes.
_HEAD_BYTES: Final = 16 * 1024
_HEADERS: Final = 100
# A proxy never pipelines; whoever does gets so many answers, and then a closed connection.
_PIPELINED: Final = 16
# Whoever cuts a body into chunks takes kilobytes at a time, not bytes: each chunk has its cost.
_CHUNKS: Final = 1024
_CONNECTIONS: Final = 4096
# Files that are not connections of senders: Kafka's, the log's, the listener's.
_OTHER_FILES: Final = 64
# Beyond the application's own time for a request, which answers in words.
_SLACK_S: Final = 10
# Closing at once would reset the connection, and the sender would see the reset, not the answer.
_LINGER_S: Final = 1.0


def _most_connections() -> int:
    """Return how many connections this process can have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_CONNECTIONS, files - _OTHER_FILES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may cost; ``stalled_after_s`` bounds a request, and then its answer."""

    head_bytes: int = _HEAD_BYTES
    headers: int = _HEADERS
    chunks: int = _CHUNKS
    pipelined: int = _PIPELINED
    connections: int = _most_connections()
    stalled_after_s: float = 10.0 + _SLACK_S

    @classmethod
    def of(cls, answer_within_s: float) -> Self:
        """Return the limits of an ingress that answers within this time."""
        return cls(stalled_after_s=answer_within_s + _SLACK_S)


_State = Literal["", "receiving", "answering", "idle", "ending", "lost"]
_Fault = Literal["malformed_request", "head_too_large", "too_many_chunks", "pipelined_too_far"]

_LAST_WORDS: Final[Mapping[_Fault, ProblemResponse | None]] = MappingProxyType(
    {
        "malformed_request": problem("malformed_request", "this is no request of HTTP/1.1"),
        "head_too_large": problem(
            "head_too_large",
            f"expected a head of at most {_HEAD_BYTES} bytes and {_HEADERS} headers",
        ),
        "too_many_chunks": problem(
            "body_too_large", f"expected a body of at most {_CHUNKS} chunks"
        ),
        # A close without a word: whoever pipelines has to be ready for it (RFC 9112, 9.3.2).
        "pipelined_too_far": None,
    }
)


class _RefusedError(Exception):
    """Leaves the parser, which has to be left by an exception."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, bounded; ``bounded_protocol`` makes the class for one server."""

    limits: ClassVar[Limits] = Limits()
    direct: ClassVar[Direct | None] = None
    # The connections that owe us something, those first that have for longest.
    waiting: ClassVar[dict["BoundedProtocol", None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state: _State = ""
        self._patience = Patience(self.loop, self._abort)
        # Of the request that is arriving: whether its head is here, and all of it.
        self._head_whole = False
        self._whole = False
        # What was read of a head that isn't whole yet, and what the parser has given us of it.
        self._read_bytes = 0
        self._parsed_bytes = 0
        self._chunks = 0
        # What is here of the body of a request that may go to the direct handler.
        self._held: bytes | None = None
        self._first_of_read = False
        self._unanswered = 0
        self._fault: _Fault = "malformed_request"
        # Set once nothing more is read; the last words, if any, follow the answers under way.
        self._ending = False
        self._last_words: ProblemResponse | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, in place of the one that waits longest if there are too many."""
        super().connection_made(transport)
        self._enter("receiving")
        if len(self.connections) > self.limits.connections:
            next(iter(self.waiting)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._enter("lost")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is no request ends the connection."""
        if self._ending:
            return
        self._read_bytes += 0 if self._head_whole else len(data)
        self._first_of_read = True
        try:
            self.parser.feed_data(data)
            if self._read_bytes > self.limits.head_bytes:
                self._refuse("head_too_large")
        except httptools.HttpParserUpgrade:
            # To answer in HTTP is right (RFC 9110, 7.8), but what follows may be something else.
            self._end(None)
        except (httptools.HttpParserError, _RefusedError):
            self._hold_no_longer()
            self._end_by_fault()
        self._hold_no_longer()
        self._watch()

    def on_message_begin(self) -> None:
        """Begin a request; `_hand_over` does the rest for one that goes to the application."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_whole = self._whole = False
        self._parsed_bytes = self._chunks = 0
        self._state = ""

    def on_url(self, url: bytes) -> None:
        """Take a piece of the path."""
        self.url += url
        self._parsed_bytes += len(url)
        if self._parsed_bytes > self.limits.head_bytes:
            self._refuse("head_too_large")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, as uvicorn does, without a call for each."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._parsed_bytes += len(name) + len(value)
        limits = self.limits
        if self._parsed_bytes > limits.head_bytes or len(self.headers) > limits.headers:
            self._refuse("head_too_large")

    def on_headers_complete(self) -> None:
        """Hold the request until the end of this read, or hand it to the application."""
        if self._unanswered >= self.limits.pipelined:
            self._refuse("pipelined_too_far")
        if self._may_be_direct():
            self._held = b""
        else:
            self._hand_over(b"")
        self._first_of_read = False
        self._unanswered += 1
        self._head_whole = True
        self._read_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._held is not None:
            self._held += body
            if len(self._held) > SMALL_BYTES:
                self._hand_over(self._held)
        else:
            super().on_body(body)

    def on_chunk_header(self) -> None:
        """Take one more chunk of the body."""
        self._chunks += 1
        if self._chunks > self.limits.chunks:
            self._refuse("too_many_chunks")

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._whole = True
        self._head_whole = False
        if self._held is not None:
            self._take(self._held)
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request; read more only when none is left."""
        self.server_state.total_requests += 1
        self._unanswered -= 1
        self._state = ""
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.flow.resume_reading()
        self._watch()

    def _may_be_direct(self) -> bool:
        """Say whether this is for the direct handler, if it is whole at the end of this read.

        Of whoever pipelines, or does not fetch his answers, the application takes care.
        """
        return (
            self.direct is not None
            and self.url == self.direct.path
            and self.parser.get_method() == b"POST"
            and self._first_of_read
            and self._unanswered == 0
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self.parser.should_upgrade()
        )

    def _hold_no_longer(self) -> None:
        """Give up hope of a request that is not whole at the end of a read."""
        if self._held is not None:
            self._hand_over(self._held)

    def _hand_over(self, body: bytes) -> None:
        """Give a request to the application, as uvicorn does, with what is here of its body."""
        self._held = None
        begun = (self.url, self.headers, self.expect_100_continue)
        # It makes the scope, and begins anew what was read since.
        super().on_message_begin()
        self.url, headers, self.expect_100_continue = begun
        self.headers += headers
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _take(self, body: bytes) -> None:
        """Give a whole request to the direct handler."""
        self._held = None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        exchange = Exchange(keep_alive=keep_alive)
        self.cycle = exchange  # type: ignore[assignment]
        self._go_on(exchange, partial(self.direct.take, self.headers, body))  # type: ignore[union-attr]

    def _go_on(self, exchange: Exchange, step: Callable[[], Response | Waiting]) -> None:
        """Take a step of the direct handler towards its answer; a bug is answered as one."""
        try:
            answer = step()
        # Also where what it waited for was cancelled: that is no word of the log.
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

    def _refuse(self, fault: _Fault) -> NoReturn:
        self._fault = fault
        raise _RefusedError

    def _end_by_fault(self) -> None:
        """End for what arrived last; a request whose body is broken gets no other answer."""
        words = _LAST_WORDS[self._fault]
        if self._head_whole and not self._whole:
            if self.cycle.response_started:
                words = None
            else:
                self._drop_request()
        self._end(words)

    def _drop_request(self) -> None:
        """Take the request that arrived last away from the application."""
        self._unanswered -= 1
        if self.pipeline:
            self.pipeline.popleft()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _end(self, last_words: ProblemResponse | None) -> None:
        self._ending = True
        self._last_words = last_words

    def _watch(self) -> None:
        """Find out what the connection waits for, and see to it that it does not wait for ever."""
        if self._ending and not self._unanswered:
            self._say_last_words()
        elif self._unanswered and (self._whole or self._ending):
            self._enter("answering")
        elif not self._whole:
            self._enter("receiving")
        else:
            self._enter("idle")

    def _say_last_words(self) -> None:
        if self._state == "ending" or self.transport.is_closing():
            return
        self._enter("ending")
        if self._last_words is not None:
            default_headers = self.server_state.default_headers
            self.transport.write(encode(self._last_words, default_headers, closes=True))
        self.transport.write_eof()
        self.flow.pause_reading()

    def _enter(self, state: _State) -> None:
        if state == self._state:
            return
        self._state = state
        self.waiting.pop(self, None)
        if state == "lost":
            self._patience.end()
            return
        if state != "answering":
            self.waiting[self] = None
        self._patience.last(self._patience_s(state))

    def _abort(self) -> None:
        self.transport.abort()

    def _patience_s(self, state: _State) -> float:
        if state == "idle":
            return self.timeout_keep_alive
        return _LINGER_S if state == "ending" else self.limits.stalled_after_s


def bounded_protocol(limits: Limits, direct: Direct | None = None) -> type[BoundedProtocol]:
    """Return the class of one server's connections, which are counted by themselves."""
    members: dict[str, Any] = {"limits": limits, "direct": direct, "waiting": {}}
    return type("ServersProtocol", (BoundedProtocol,), members)
