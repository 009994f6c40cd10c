"""Defines the settings for the programs' addresses, which servers and their clients share."""

import socket
from typing import Annotated, Final

from runtime.access import Token
from runtime.settings import Port, SettingsError, setting

LOOPBACK: Final = "127.0.0.1"
# `plexy-ledger run` serves the metrics of ingress on this port, where `plexy-ledger status` reads
# them.
RUN_METRICS_PORT: Final = 8100

IngestHost = Annotated[str, setting("address on which ingress receives webhooks")]
IngestPort = Annotated[Port, setting("port on which ingress receives webhooks")]
IngestMetricsHost = Annotated[
    str, setting("address on which ingress serves its metrics to every client")
]
IngestMetricsPort = Annotated[
    Port | None,
    setting(
        "port on which ingress serves the metrics of all its processes. If it is not set, `run` "
        f"uses {RUN_METRICS_PORT}, and `ingest` serves no metrics"
    ),
]
WebBind = Annotated[str, setting("address on which the web views listen")]
WebPort = Annotated[Port, setting("port of the web views")]
ApiToken = Annotated[
    Token | None,
    setting(
        "bearer token, of at least 16 characters, that the web views and the audit require; it "
        "must be set if they listen on an address other than loopback"
    ),
]


def in_url(host: str) -> str:
    """Return a host as it is written in a URL.

    >>> in_url("::1"), in_url("127.0.0.1"), in_url("worker-0")
    ('[::1]', '127.0.0.1', 'worker-0')
    """
    return f"[{host}]" if ":" in host else host


def listener(
    variables: tuple[str, str], host: str, port: int, *, backlog: int, shared: bool = False
) -> socket.socket:
    """Listen on an address; if that fails, raise a ``SettingsError`` that names the two settings.

    Several of our own processes may listen on a ``shared`` address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog, reuse_port=shared)
    except OSError as error:
        raise SettingsError(
            f"{variables[0]}={host}, {variables[1]}={port}: can't listen there "
            f"({error.strerror}); stop the program that listens there, or choose another port"
        ) from None
