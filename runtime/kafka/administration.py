"""Sends administrative requests to the brokers, and waits for the answers for a limited time.

Input: settings with the addresses of the brokers. Output: a connected admin client and its answers,
or a ``TopicsError`` that says why Kafka does not answer, with the remedy.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)

from runtime.fault import Fault
from runtime.kafka.client_log import ClientLog
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.expiries import expired
from runtime.kafka.internals import client_of
from runtime.kafka.topic_looks import TopicsError

# When a broker dies, electing new leaders takes less time than this.
_ANSWERED_WITHIN_S: Final = 30.0
_RIGHTS: Final = "give this user Describe and DescribeConfigs on all topics of the ledger"

SILENT: Final = "Kafka does not answer"
"""The first words of the fault if no broker answers; more specific faults begin differently."""

UNREACHED: Final = (KafkaConnectionError, NodeNotReadyError)
"""The errors of a client that can't connect to a broker."""

_EXPIRED: Final = re.compile("(?i)certificate.(has.)?expired")
_RENEW: Final = (
    "renew the expired certificate, which is a broker's or the one in "
    "LEDGER_KAFKA_CERTIFICATE_FILE: the programs read the files for each connection"
)
_CORRECT: Final = (
    "correct LEDGER_KAFKA_USERNAME, and LEDGER_KAFKA_PASSWORD or the file in "
    "LEDGER_KAFKA_PASSWORD_FILE, which the programs read for each connection"
)
_TRUST: Final = "set LEDGER_KAFKA_CA_FILE to the authority that signed the brokers' certificates"
# Each entry has a pattern and a remedy. The pattern matches a client's log line about a refusal.
# More specific patterns come first.
_REFUSALS: Final = (
    (_EXPIRED, _RENEW),
    (re.compile("(?i)certificate.verify.failed"), _TRUST),
    (re.compile("(?i)authentication.failed"), _CORRECT),
)

T = TypeVar("T")


@asynccontextmanager
async def administration(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client; raise ``TopicsError`` if Kafka does not answer."""
    admin = AIOKafkaAdminClient(**settings.client_options(), request_timeout_ms=15_000)
    with ClientLog() as said:
        try:
            await admin.start()
        except KafkaError as error:
            advertised = advertised_by(client_of(admin), settings)
            raise TopicsError(unreachable(settings, error, said.last_line, advertised)) from error
    try:
        yield admin
    except (TopicsError, *UNREACHED) as error:
        cause, advertised = error.__cause__ or error, advertised_by(client_of(admin), settings)
        # The configured address answers, but an address that the brokers advertise does not.
        if advertised and isinstance(cause, UNREACHED):
            raise TopicsError(unreachable(settings, cause, str(error), advertised)) from error
        raise
    finally:
        await admin.close()


def advertised_by(client: AIOKafkaClient, settings: KafkaSettings) -> str:
    """Return the addresses that the brokers advertise, and that are not configured here."""
    brokers = {f"{each.host}:{each.port}" for each in client.cluster.brokers()}
    return ",".join(sorted(brokers.difference(settings.bootstrap_servers)))


def unreachable(
    settings: KafkaSettings, error: Exception, said: str = "", advertised: str = ""
) -> Fault:
    """Return the fault if Kafka does not answer; it names Kafka's addresses and the remedy."""
    brokers = ",".join(settings.bootstrap_servers)
    why = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if advertised:
        return Fault(
            f"Kafka answers at {brokers}, but its brokers advertise {advertised}, and not all of "
            f"these addresses can be reached from this machine ({why})",
            "correct `advertised.listeners` of the brokers, or let this machine reach those "
            "addresses",
        )
    for each in expired(settings):
        # A broker that refuses our expired certificate gives no reason.
        if each.side == "ours" or _EXPIRED.search(why):
            what = f"Kafka does not let us in at {brokers}: {each.what} expired at {each.at}"
            return Fault(f"{what} ({why})", each.remedy)
    for refusal, remedy in _REFUSALS:
        if refusal.search(why):
            return Fault(f"Kafka at {brokers} refuses this client ({why})", remedy)
    return Fault(
        f"{SILENT} at {brokers} ({why})",
        "start Kafka (`plexy-ledger kafka` runs an embedded one), or set LEDGER_KAFKA_BOOTSTRAP to "
        "a running Kafka",
    )


async def answer(ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Ask until a broker answers; raise ``TopicsError`` if no broker answers within the limit.

    Each attempt may reach a different broker. That broker may be down, or may have become
    responsible only a moment ago. It may also not know yet that a topic was created through a
    different broker; in that case, ``ask`` returns ``None``.
    """
    deadline = time.monotonic() + _ANSWERED_WITHIN_S
    while True:
        cause = None
        fault = Fault(f"{what}: no answer within {_ANSWERED_WITHIN_S:.0f} s", "check the brokers")
        try:
            if (answer := await ask()) is not None:
                return answer
        # An admin client raises a bare ``TimeoutError`` if it can't connect to the broker that it
        # must ask.
        except (KafkaError, TimeoutError) as error:
            denied = isinstance(error, TopicAuthorizationFailedError)
            cause = error
            fault = Fault(f"{what}: {error!r}", _RIGHTS if denied else "check the brokers")
            if isinstance(error, KafkaError) and not error.retriable:
                raise TopicsError(fault) from error
        if time.monotonic() > deadline:
            raise TopicsError(fault) from cause
        await asyncio.sleep(0.05)
