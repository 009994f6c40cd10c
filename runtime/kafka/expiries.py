"""Lists the known certificates: when each expires, and how to renew it.

Input: Kafka's settings, and the expiries of the brokers' certificates that ``certificates`` has
recorded. Output: ``Expiring`` values, for warnings, for the metrics, and for the error that says
why a broker can't be reached or refuses a connection.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runtime.kafka.certificates import Side, expires_s, of_brokers
from runtime.kafka.connection import KafkaSettings

WARNED_BEFORE_S: Final = 7 * 24 * 3600.0
"""Warnings begin this long before a certificate expires.

Certificates are usually renewed earlier, weeks before they expire. A week leaves time to act.
"""


class Expiring(NamedTuple):
    """A certificate, its expiry, and how to renew it."""

    what: str
    side: Side
    at_s: float
    remedy: str

    @property
    def at(self) -> str:
        """The expiry in ISO 8601."""
        return datetime.fromtimestamp(self.at_s, UTC).isoformat(timespec="seconds")

    @property
    def is_soon(self) -> bool:
        """Whether to warn of a certificate that expires soon, or has expired."""
        return self.at_s - time.time() < WARNED_BEFORE_S


def expiring(settings: KafkaSettings) -> Iterator[Expiring]:
    """Yield every known certificate: our own, and those that brokers have presented."""
    files = settings.tls_files()
    if files is None:
        return
    files.current()
    if files.expires_s is not None:
        what = f"LEDGER_KAFKA_CERTIFICATE_FILE={settings.kafka_certificate_file}"
        remedy = "replace the certificate file and its key file; no restart is needed"
        yield Expiring(what, "ours", files.expires_s, remedy)
    for broker, at_s in of_brokers().items():
        remedy = (
            "renew the broker's certificate or its authority's certificate, whichever expires first"
        )
        yield Expiring(f"the broker {broker}", "brokers", at_s, remedy)


def expired(settings: KafkaSettings) -> Iterator[Expiring]:
    """Yield every known certificate that has expired, even one in our file of authorities.

    That file may contain a former authority next to the current authority. So the expiry of an
    authority in the file matters only if a broker's certificate is refused.
    """
    yield from (each for each in expiring(settings) if each.at_s < time.time())
    file = settings.kafka_ca_file
    # OpenSSL may read a file that this module can't read.
    with suppress(OSError, ValueError):
        if file is not None and (at_s := expires_s(file.read_bytes())) < time.time():
            what = f"an authority in LEDGER_KAFKA_CA_FILE={file}"
            yield Expiring(what, "brokers", at_s, "replace the file; no restart is needed")
