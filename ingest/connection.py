"""One connection of the server's, with bounds: uvicorn's own has few.

In: bytes from anyone. Out: requests for the application; a problem document for what is no request.
Never: more of a head in memory than ``Limits`` allows, a request that takes for ever to arrive, an
answer that takes for ever to be fetched, or more connections than the process can have: where one
too many comes, the one that has kept us waiting longest goes.

uvicorn 0.54 with httptools has no limit on a head's size or time, reads pipelined requests faster
than it answers them, and answers what is no HTTP in plain text. What a connection is waiting for::

    ``receiving`` ──(request whole)──▶ ``answering`` ──(answer written)──▶ ``idle``
         ▲ (connected)                                                       │ (next byte)
         └───────────────────────────────────────────────────────────────────┘
         └──(no request)──▶ ``ending``: the last words are out, nothing more is read
"""

import asyncio
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NoReturn, Self

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingest.answers import ProblemResponse, problem

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
    # The connections that owe us something, those first that have for longest.
    waiting: ClassVar[dict["BoundedProtocol", None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state: _State = ""
        self._stalled: asyncio.TimerHandle | None = None
        # Of the request that is arriving: whether its head is here, and all of it.
        self._head_whole = False
        self._whole = False
        # What was read of a head that isn't whole yet, and what the parser has given us of it.
        self._read_bytes = 0
        self._parsed_bytes = 0
        self._chunks = 0
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
        try:
            self.parser.feed_data(data)
            if self._read_bytes > self.limits.head_bytes:
                self._refuse("head_too_large")
        except httptools.HttpParserUpgrade:
            # To answer in HTTP is right (RFC 9110, 7.8), but what follows may be something else.
            self._end(None)
        except (httptools.HttpParserError, _RefusedError):
            self._end_by_fault()
        self._watch()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_whole = self._whole = False
        self._parsed_bytes = self._chunks = 0
        self._state = ""

    def on_url(self, url: bytes) -> None:
        """Take a piece of the path."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._count(len(name) + len(value))
        if len(self.headers) > self.limits.headers:
            self._refuse("head_too_large")

    def on_headers_complete(self) -> None:
        """Hand the request to the application, or queue it behind others of this connection."""
        if self._unanswered >= self.limits.pipelined:
            self._refuse("pipelined_too_far")
        super().on_headers_complete()
        self._unanswered += 1
        self._head_whole = True
        self._read_bytes = 0

    def on_chunk_header(self) -> None:
        """Take one more chunk of the body."""
        self._chunks += 1
        if self._chunks > self.limits.chunks:
            self._refuse("too_many_chunks")

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        super().on_message_complete()
        self._whole = True
        self._head_whole = False

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

    def _count(self, size_bytes: int) -> None:
        self._parsed_bytes += size_bytes
        if self._parsed_bytes > self.limits.head_bytes:
            self._refuse("head_too_large")

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
            self.transport.write(_encode(self._last_words, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.pause_reading()

    def _enter(self, state: _State) -> None:
        if state == self._state:
            return
        self._state = state
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self.waiting.pop(self, None)
        if state == "lost":
            return
        if state != "answering":
            self.waiting[self] = None
        self._stalled = self.loop.call_later(self._patience_s(state), self.transport.abort)

    def _patience_s(self, state: _State) -> float:
        if state == "idle":
            return self.timeout_keep_alive
        return _LINGER_S if state == "ending" else self.limits.stalled_after_s


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """Return the class of one server's connections, which are counted by themselves."""
    return type("ServersProtocol", (BoundedProtocol,), {"limits": limits, "waiting": {}})


def _encode(answer: ProblemResponse, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    headers = [*default_headers, *answer.raw_headers, (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%b%b\r\n%b" % (STATUS_LINE[answer.status_code], lines, bytes(answer.body))
