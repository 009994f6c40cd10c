"""Decides whether a client may read a server: by its token or, if no token is set, by ``Host``.

If no token is set, a server listens only on loopback. That is not enough to keep web pages out: a
page can point its own name at 127.0.0.1 (DNS rebinding). Then the reader's browser lets the page's
scripts read a server on the reader's machine. Such requests carry the page's name in ``Host``. So a
server that has no token answers only to names that always mean the server's own machine.

Input: the headers of a request, and the token if a token is set. Output: the problem to answer
with, or ``None``. Invariant: a problem never repeats a malformed header.
"""

import hmac
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from runtime.problems import Problem
from runtime.settings import Secret, SettingsError

_HOST: Final = re.compile(
    r"(?:(?P<name>[\w.~-]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::\d{0,5})?", re.ASCII
)
_MIN_CHARACTERS: Final = 16


class Token(Secret):
    """A bearer token that is too long to guess."""

    __slots__ = ()

    def __init__(self, value: str) -> None:
        if len(value) < _MIN_CHARACTERS:
            raise ValueError(
                f"expected at least {_MIN_CHARACTERS} characters, got {len(value)}; "
                "`openssl rand -hex 32` makes a token"
            )
        super().__init__(value)


def wrong_host(hosts: Sequence[str], token: Token | None) -> Problem | None:
    """Return the problem with the values of a request's ``Host`` headers, or ``None``."""
    host = _name(hosts[0]) if len(hosts) == 1 else None
    if host is None:
        detail = "expected one `Host` header with a name or an address, and optionally a port"
        return Problem(status=400, code="invalid_host", detail=detail)
    if token is not None or is_loopback(host):
        return None
    detail = (
        f"the host {host:.80} is not allowed: without LEDGER_API_TOKEN, only localhost, 127.0.0.1 "
        "and [::1] are allowed; use one of these hosts, or set the token"
    )
    return Problem(status=421, code="host_not_allowed", detail=detail)


def wrong_token(authorization: str, token: Token | None) -> Problem | None:
    """Return the problem with the value of ``Authorization``, or ``None``.

    The time of the comparison does not reveal how much of a wrong token is right.
    """
    if token is None:
        return None
    given = authorization.encode("utf-8", "surrogateescape")
    if hmac.compare_digest(given, f"Bearer {token.reveal()}".encode()):
        return None
    return Problem(status=401, code="unauthorized", detail="expected `Authorization: Bearer …`")


def require_token(variable: str, address: str, token: Token | None) -> None:
    """Raise ``SettingsError`` if other machines can reach ``address`` and no token is set."""
    if token is None and not is_loopback(address):
        raise SettingsError(
            f"{variable}={address} can be reached from other machines: set LEDGER_API_TOKEN, or "
            f"leave {variable} at 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Return whether a name or an address always means the machine that uses it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host: str) -> str | None:
    """Return the name in a ``Host`` header, without the port; ``None`` for a malformed header."""
    found = _HOST.fullmatch(host)
    if found is None or not found["ipv6"]:
        return found and found["name"]
    try:
        return str(ip_address(found["ipv6"]))
    except ValueError:
        return None
