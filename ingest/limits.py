"""Defines the limits of one connection, and the answers to a sender that exceeds a limit.

Input: the head of a request. Output: the fault that ends the connection, if any. For most faults, a
problem document is the last answer on the connection.
"""

import re
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Self

from ingest.answers import Headers, ProblemResponse, problem

# Proxies usually allow heads of this size too; Plexy's own heads have some 500 bytes.
_HEAD_BYTES: Final = 16 * 1024
_HEADERS: Final = 100
# A proxy never pipelines. A sender that pipelines gets this many answers before the connection is
# closed.
_PIPELINED: Final = 16
# A sender that divides a body into chunks usually puts kilobytes into each chunk. The limit bounds
# the cost of tiny chunks.
_CHUNKS: Final = 1024
# After a refusal, up to this many more bytes of the body are read and dropped, so that a sender
# that first sends its whole body can read the answer. The sender of a larger body can also read the
# answer, unless the rest of the body fills the system's buffers.
_DROPPED_BYTES: Final = 64 * 1024
_CONNECTIONS: Final = 4096
# Some open files are not senders' connections: connections to Kafka, log output and the listener.
_OTHER_FILES: Final = 64
# The application answers within its own time limit; a connection gets this much more time.
_SLACK_S: Final = 10


def _most_connections() -> int:
    """Return the largest number of connections that this process can have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_CONNECTIONS, files - _OTHER_FILES))


Fault = Literal[
    "malformed_request",
    "wrong_host",
    "head_too_large",
    "framing_too_large",
    "too_many_chunks",
    "too_much_dropped",
    "pipelined_too_far",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one connection.

    ``head_bytes`` limits the size of a request's head. It also limits the total size of the
    request's chunk sizes, chunk extensions and trailers. ``dropped_bytes`` limits the bytes read
    from a body after its request was answered. ``stalled_after_s`` limits the time that a request
    takes, and then the time that its answer takes.
    """

    head_bytes: int = _HEAD_BYTES
    headers: int = _HEADERS
    chunks: int = _CHUNKS
    dropped_bytes: int = _DROPPED_BYTES
    pipelined: int = _PIPELINED
    connections: int = _most_connections()
    stalled_after_s: float = 10.0 + _SLACK_S

    @classmethod
    def of(cls, answer_within_s: float) -> Self:
        """Return the limits of an ingress that answers within this time."""
        return cls(stalled_after_s=answer_within_s + _SLACK_S)

    def fault_of_head(
        self, url: bytes, headers: Headers, http_version: str, unanswered: int
    ) -> Fault | None:
        """Return the fault of a request's head, if any; ``unanswered`` counts earlier requests."""
        size_bytes = len(url)
        hosts = []
        for name, value in headers:
            size_bytes += len(name) + len(value)
            if name == b"host":
                hosts.append(value)
        if size_bytes > self.head_bytes:
            return "head_too_large"
        if unanswered >= self.pipelined:
            return "pipelined_too_far"
        return None if names_one_host(hosts, http_version) else "wrong_host"


# The last answer on a connection that is closed for a fault. ``None`` means that the connection is
# closed without an answer.
LAST_WORDS: Final[Mapping[Fault, ProblemResponse | None]] = MappingProxyType(
    {
        "malformed_request": problem("malformed_request", "expected a request in HTTP/1.1"),
        "wrong_host": problem(
            "malformed_request", "expected one Host header, with a host and optionally a port"
        ),
        "head_too_large": problem(
            "head_too_large",
            f"expected a head of at most {_HEAD_BYTES} bytes and {_HEADERS} headers",
        ),
        "framing_too_large": problem(
            "head_too_large",
            f"expected chunk sizes, extensions and trailers of at most {_HEAD_BYTES} bytes",
        ),
        "too_many_chunks": problem(
            "body_too_large", f"expected a body of at most {_CHUNKS} chunks"
        ),
        # The request was answered, but its sender is still sending the body.
        "too_much_dropped": None,
        # A sender that pipelines must expect a close without an answer (RFC 9112, 9.3.2).
        "pipelined_too_far": None,
    }
)

# The pattern matches an IP literal, an IPv4 address or a name, then the port. RFC 3986, 3.2.2 also
# allows punctuation in a name, such as the comma that joins two headers; host names contain none.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~%-]+)(?::[0-9]{0,5})?")


def names_one_host(hosts: Sequence[bytes], http_version: str) -> bool:
    """Return whether a request has the Host headers that RFC 9112, 3.2 requires.

    >>> names_one_host([b"ledger.example:8000"], "1.1"), names_one_host([b"[::1]"], "1.1")
    (True, True)
    >>> names_one_host([b"a:b:c"], "1.1"), names_one_host([b"a", b"a"], "1.1")
    (False, False)
    >>> names_one_host([], "1.1"), names_one_host([], "1.0")
    (False, True)
    """
    if not hosts:
        return http_version == "1.0"
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0]) is not None
