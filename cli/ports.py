"""Checks that the ports in the settings are free, and builds the addresses of local programs."""

import socket
from collections.abc import Iterable

import msgspec

from cli.errors import PortTakenError
from runtime.addresses import in_url
from runtime.fault import Fault


class WantedPort(msgspec.Struct, frozen=True):
    """A port that a program will listen on, and the setting that chooses the port."""

    program: str
    host: str
    port: int
    variable: str


def require_free(wanted: Iterable[WantedPort]) -> None:
    """Raise ``PortTakenError`` for the first port that is taken, or that two settings choose."""
    variables: dict[int, str] = {}
    for each in wanted:
        other = variables.setdefault(each.port, each.variable)
        if other != each.variable:
            raise PortTakenError(
                Fault(
                    f"{other} and {each.variable} are both {each.port}",
                    "give each setting its own port",
                )
            )
        _require_free(each)


def base_url(host: str, port: int) -> str:
    """Return the address under which this machine reaches a program that listens on ``host``.

    >>> base_url("0.0.0.0", 8000), base_url("::1", 8000)
    ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{in_url(reachable)}:{port}"


def _require_free(wanted: WantedPort) -> None:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    with socket.socket(family) as candidate:
        # The programs also set this option, so old connections of an ended program do not matter.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((wanted.host, wanted.port))
        except OSError as error:
            raise PortTakenError(
                Fault(
                    f"{wanted.program} can't listen on {wanted.host}:{wanted.port} "
                    f"({error.strerror})",
                    f"free the port, or choose another port with {wanted.variable}",
                )
            ) from error
