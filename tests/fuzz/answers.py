"""Checks that the bytes from a server, if there are any, are complete and documented answers.

Input: the bytes of a connection. Output: the answers in them, or an `UndocumentedError`. The module
has its own strict parser, because a client library would also accept some faulty answers.
"""

import json
from typing import Final, NamedTuple

from ingest.answers import STATUS

PROBLEM: Final = "application/problem+json"
# A 500, the answer to a bug, is also documented, but it must not occur.
CODES: Final = {code for code, status in STATUS.items() if status != 500}


class UndocumentedError(AssertionError):
    """The server sent an undocumented answer."""


class Answer(NamedTuple):
    """One answer of the server.

    ``code`` is `accepted` for a 200, and otherwise the code in the problem document. If the answer
    has no body, ``code`` is empty.
    """

    status: int
    code: str
    closes: bool


def answers_in(received: bytes) -> list[Answer]:
    """Parse all bytes of a connection; a truncated answer is an error."""
    found = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        if not separator:
            raise UndocumentedError(f"an answer's head is cut off: {received[:200]!r}")
        status, headers = _read_head(head)
        if status == 100:
            received = rest
            continue
        length = int(headers.get("content-length", "-1"))
        # An answer to HEAD has a length but no body. Every body is JSON, so it begins with a brace.
        body = rest[:length] if rest.startswith(b"{") else b""
        if body and len(body) != length:
            raise UndocumentedError(f"an answer's body is cut off: {received[:200]!r}")
        found.append(_judge(status, headers, body))
        received = rest[len(body) :]
    return found


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = [*first.split(" ", 2), ""]
    if version != "HTTP/1.1" or not status.isdigit():
        raise UndocumentedError(f"not an HTTP answer: {first!r}")
    pairs = [line.partition(": ") for line in lines]
    return int(status), {name.lower(): value for name, _, value in pairs}


def _judge(status: int, headers: dict[str, str], body: bytes) -> Answer:
    closes = headers.get("connection", "").lower() == "close"
    if status == 200:
        return Answer(200, "accepted", closes)
    if headers.get("content-type") != PROBLEM:
        raise UndocumentedError(f"{status} is not a problem document: {headers} {body[:200]!r}")
    if not body:
        return Answer(status, "", closes)
    document = json.loads(body)
    code = document["code"]
    if code not in CODES or STATUS[code] != status or document["status"] != status:
        raise UndocumentedError(f"{status} with {document}")
    return Answer(status, code, closes)
