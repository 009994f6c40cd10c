"""Checks at intervals whether Kafka would accept a new connection, while old connections stay open.

Input: Kafka's settings. Output: a warning with the remedy, and the certificates' expiry for the
metrics. A program that runs for months has old connections. Without this check, an expired
certificate or a changed password would stop the program only when a broker restarts.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaConnectionError, KafkaError

from runtime.fault import Fault
from runtime.kafka import certificates
from runtime.kafka.administration import administration, unreachable
from runtime.kafka.certificates import Side
from runtime.kafka.client_log import ClientLog
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.expiries import Expiring, expiring
from runtime.kafka.internals import client_of
from runtime.kafka.topic_looks import TopicsError

_EXPIRY: Final = (
    "earliest expiry of the certificates that are `ours`, or that the `brokers` have presented; "
    "absent if there are none"
)
EXPIRY_METRIC: Final = ("certificate_expiry_timestamp_seconds", _EXPIRY)
"""The name and the meaning of a metric of every long-running program, with the label ``side``."""

_CHECK_EVERY_S: Final = 30.0
_WARN_AGAIN_AFTER_S: Final = 24 * 3600.0

_log = structlog.get_logger(__name__)

Show = Callable[[Side, float], None]


async def try_new_connections(settings: KafkaSettings) -> None:
    """Connect to every broker; raise ``TopicsError`` or ``KafkaError`` if a broker refuses."""
    async with administration(settings) as admin:
        client = client_of(admin)
        brokers = client.cluster.brokers()
        for broker in brokers:
            with ClientLog() as said:
                if not await client.ready(broker.nodeId):
                    address = f"{broker.host}:{broker.port}"
                    advertised = "" if address in settings.bootstrap_servers else address
                    error = KafkaConnectionError()
                    fault = unreachable(settings, error, said.last_line, advertised)
                    raise TopicsError(fault)
        addresses = {f"{each.host}:{each.port}" for each in brokers}
        certificates.forget_others(addresses.union(settings.bootstrap_servers))


class NewConnections:
    """Checks at intervals; ``show`` receives the earliest expiry of each side's certificates."""

    def __init__(self, settings: KafkaSettings, show: Show) -> None:
        self._settings = settings
        self._show = show
        self._refused: Fault | None = None
        self._warned_s: dict[str, float] = {}

    async def watch(self) -> None:
        """Check until cancelled; if neither TLS nor SASL is used, there is nothing to check."""
        while self._settings.kafka_tls or self._settings.kafka_sasl_mechanism:
            await self._check()
            await asyncio.sleep(_CHECK_EVERY_S)

    async def _check(self) -> None:
        fault = None
        try:
            await try_new_connections(self._settings)
        except TopicsError as error:
            fault = error.fault
        except (KafkaError, OSError) as error:
            fault = Fault(str(error))
        if fault and fault != self._refused:
            _log.warning("new_connections_refused", reason=fault.what, remedy=fault.remedy)
        self._refused = fault
        found = list(expiring(self._settings))
        for side in {each.side for each in found}:
            self._show(side, min(each.at_s for each in found if each.side == side))
        for each in found:
            self._warn(each)

    def _warn(self, each: Expiring) -> None:
        """Warn once a day of a certificate that expires soon."""
        now_s = time.monotonic()
        since_s = now_s - self._warned_s.get(each.what, -_WARN_AGAIN_AFTER_S)
        if each.is_soon and since_s >= _WARN_AGAIN_AFTER_S:
            self._warned_s[each.what] = now_s
            _log.warning(
                "certificate_expires",
                certificate=each.what,
                expires=each.at,
                days=round((each.at_s - time.time()) / 86400, 1),
                remedy=each.remedy,
            )
