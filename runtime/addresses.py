"""Where the programs listen, and how they are asked: the settings, alike for all who read them.

In: the environment. Out: addresses, for the program that listens there and for those that ask it.
"""

from typing import Annotated, Final

from runtime.access import Token
from runtime.settings import Port, setting

LOOPBACK: Final = "127.0.0.1"
# Where `plexy-ledger run` serves ingress' metrics; `plexy-ledger status` looks there as well.
RUN_METRICS_PORT: Final = 8100

IngestHost = Annotated[str, setting("address that webhooks are received on")]
IngestPort = Annotated[Port, setting("port that webhooks are received on")]
IngestMetricsHost = Annotated[
    str, setting("address that ingress' metrics are served on, to whoever asks")
]
IngestMetricsPort = Annotated[
    Port | None,
    setting(
        "port of ingress' metrics, of all its processes. Unset: `run` takes "
        f"{RUN_METRICS_PORT}, `ingest` serves none"
    ),
]
WebBind = Annotated[str, setting("address that the web views listen on")]
WebPort = Annotated[Port, setting("port of the web views")]
ApiToken = Annotated[
    Token | None,
    setting(
        "bearer token of at least 16 characters that the web views and the audit ask for; needed "
        "beyond loopback"
    ),
]
