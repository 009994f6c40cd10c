"""Reads the parameters of a request's query; a wrong parameter leads to a 400 that names it."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from processors.views.answers import ProblemError

LONGEST_WAIT_S: Final = 20.0
MOST_ITEMS: Final = 200
_DEFAULT_ITEMS: Final = 50
# A request line has at most 8,190 bytes, so no complete cursor is longer than 8,000.
_LONGEST_CURSOR: Final = 8_000
_CURSOR: Final = "the `cursor` of the previous page"
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)?")
_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,3})?")

Position = TypeVar("Position")


def invalid(name: str, given: str, expected: str) -> ProblemError:
    """Return the error for a wrong parameter."""
    detail = f"expected `{name}` to be {expected}, got {given!r:.80}"
    return ProblemError(400, "invalid_parameter", detail, name)


def wait_s(request: Any) -> float:
    """Return how long to wait, in seconds: ``5``, ``5s`` or ``500ms``; the default is 0."""
    given = request.query.get("wait", "")
    if not given:
        return 0.0
    matched = _DURATION.fullmatch(given)
    seconds = float(matched[1]) / (1000 if matched[2] == "ms" else 1) if matched else -1.0
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise invalid("wait", given, f"a time such as 5s or 500ms, of at most {LONGEST_WAIT_S:g} s")
    return seconds


def time_ms(request: Any, name: str) -> int | None:
    """Return a time in Unix milliseconds; ``None`` if the parameter is not given.

    The parameter is a time in RFC 3339 or in Unix seconds. A time that names no zone is in UTC.
    """
    given = request.query.get(name, "").strip()
    if not given:
        return None
    if _UNIX_SECONDS.fullmatch(given):
        return round(float(given) * 1000)
    try:
        # A plus sign in a query is decoded to a space.
        at = datetime.fromisoformat(given.replace(" ", "+") if "T" in given else given)
    except ValueError:
        raise invalid(name, given, "a time such as 2026-01-31T12:00:00Z, or Unix seconds") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


def limit(request: Any) -> int:
    """Return how many items to list."""
    given = request.query.get("limit", "")
    if not given:
        return _DEFAULT_ITEMS
    if not _NUMBER.fullmatch(given) or not 1 <= int(given) <= MOST_ITEMS:
        raise invalid("limit", given, f"a number from 1 to {MOST_ITEMS}")
    return int(given)


def cursor(
    request: Any, kind: type[Position], fits: Callable[[Position], bool] = lambda _: True
) -> Position | None:
    """Return the position at which the previous page ended; ``None`` for the first page."""
    given: str = request.query.get("cursor", "")
    if not given:
        return None
    try:
        position = read_cursor(given, kind)
    except ValueError:
        raise invalid("cursor", given, _CURSOR) from None
    if not fits(position):
        raise invalid("cursor", given, _CURSOR)
    return position


def read_cursor(given: str, kind: type[Position]) -> Position:
    """Return the position that a cursor encodes; raise ``ValueError`` if it is not a ``kind``."""
    packed = base64.urlsafe_b64decode(given[:_LONGEST_CURSOR] + "=" * (-len(given) % 4))
    return msgspec.msgpack.decode(packed, type=kind)


def written_cursor(position: object) -> str:
    """Return the cursor that encodes a position."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode().rstrip("=")


def flag(request: Any, name: str) -> bool:
    """Return whether a parameter is ``true``."""
    given: str = request.query.get(name, "false")
    if given not in {"true", "false"}:
        raise invalid(name, given, "true or false")
    return given == "true"


def one_of(request: Any, name: str, allowed: tuple[str, ...]) -> str | None:
    """Return a parameter that must be one of the allowed words; ``None`` if it is not given."""
    given: str = request.query.get(name, "")
    if not given:
        return None
    if given not in allowed:
        raise invalid(name, given, f"one of {', '.join(allowed)}")
    return given
