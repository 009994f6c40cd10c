"""The brokers: do they answer and let us in, are there enough, and what time is it there.

In: the settings. Out: findings, and the cluster that answered. Never: a write to Kafka.
"""

import asyncio
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from cli.doctor.clock import Clock, ask_clock
from cli.doctor.findings import Cluster, Finding, Patient, ok, problem, warning
from cli.printing import counted
from ledger.signature import DEFAULT_TOLERANCE_S
from processors.settings import WorkerSettings
from runtime.fold_rules import difference_from_group
from runtime.kafka.client_log import ClientLog
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.identities import EXPIRATION, REMEDY, ExpirationError, require_expiration
from runtime.kafka.internals import versions_of
from runtime.kafka.new_connections import expiring
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topic_states import Fault
from runtime.kafka.topics import (
    SILENT,
    TopicSettings,
    administration,
    advertised_by,
    unreachable,
)
from runtime.settings import SettingsError

_CONNECTED_WITHIN_S: Final = 3.0
_REQUEST_MS: Final = 10_000
# A clock that is kept right is off by milliseconds; this share of the tolerance says it is not.
_SUSPICIOUS_SHARE: Final = 0.1
_REPLICAS_IN_PRODUCTION: Final = 3
# By its fifth version a member of a group has a name that outlives it (Kafka 2.3).
_STATIC_MEMBERSHIP: Final = 5
_SPOKEN: Final = (
    MetadataRequest,
    ProduceRequest,
    FetchRequest,
    FindCoordinatorRequest,
    JoinGroupRequest,
    InitProducerIdRequest,
)


def check_kafka(patient: Patient) -> Iterator[Finding]:
    """Look at Kafka, as the programs would talk to it; leaves the cluster with the patient."""
    if not patient.readers("LEDGER_KAFKA_BOOTSTRAP"):
        return
    settings = KafkaSettings.from_environment(patient.environment)
    try:
        settings.client_options()
    except SettingsError as error:
        what, _, remedy = str(error).partition("; ")
        yield problem(what, remedy)
        return
    yield from asyncio.run(_look(settings, patient))
    for each in expiring(settings):
        what = f"the certificate of {each.what} expires at {each.at}"
        yield warning(what, each.remedy) if each.is_soon else ok(what)
    if patient.cluster and patient.readers("LEDGER_REPLICATION_FACTOR"):
        topics = TopicSettings.from_environment(patient.environment)
        yield from replication(patient.cluster.brokers, topics)
    if patient.cluster and patient.readers("LEDGER_STANDBY_REPLICAS"):
        yield asyncio.run(_expiration(settings))
        yield from asyncio.run(_rules(WorkerSettings.from_environment(patient.environment)))


async def _look(settings: KafkaSettings, patient: Patient) -> list[Finding]:
    client = AIOKafkaClient(**settings.client_options(), request_timeout_ms=_REQUEST_MS)
    with ClientLog() as said:
        try:
            await client.bootstrap()
            return await _ask(client, settings, patient)
        except KafkaError as error:
            advertised = advertised_by(client, settings)
            reason = unreachable(settings, error, said.last_line, advertised)
            return [_silent(settings, patient, reason)]
        finally:
            await client.close()


def _silent(settings: KafkaSettings, patient: Patient, fault: Fault) -> Finding:
    what, remedy = fault.what, fault.remedy
    if settings.kafka_bootstrap is None and "run" in patient.programs:
        return warning(what, "nothing for `plexy-ledger run`, which starts one; else " + remedy)
    if what.startswith(SILENT) and any(map(_connects, settings.bootstrap_servers)):
        remedy = (
            "somebody listens there: if it is Kafka, it talks another protocol, or refuses us; "
            "look at LEDGER_KAFKA_TLS, _CA_FILE, _SASL_MECHANISM, _USERNAME and _PASSWORD. Else "
            + remedy
        )
    return problem(what, remedy)


async def _ask(client: AIOKafkaClient, settings: KafkaSettings, patient: Patient) -> list[Finding]:
    node = client.get_random_node()
    metadata = (await client.send(node, MetadataRequest([]))).to_object()
    brokers = metadata["brokers"]
    patient.cluster = Cluster(metadata["cluster_id"], len(brokers))
    known = counted(len(brokers), "broker")
    found = [ok(f"Kafka {metadata['cluster_id']} answers, with {known}")]
    found += [
        warning(
            f"{server}, of LEDGER_KAFKA_BOOTSTRAP, does not answer",
            "start that broker, or correct its address: programs that start ask each of them",
        )
        for server in settings.bootstrap_servers
        if not _connects(server)
    ]
    for broker in brokers:
        if not await client.ready(broker["node_id"]):
            found.append(
                problem(
                    f"broker {broker['node_id']} can't be reached at {broker['host']}:"
                    f"{broker['port']}, as it says of itself",
                    "start it, or correct its `advertised.listeners`, or open the network to it",
                )
            )
    versions = await client.send(node, ApiVersionRequest())
    found += protocol({key: (least, most) for key, least, most in versions.api_versions})
    found.append(await _clock(client, patient))
    return found


async def _clock(client: AIOKafkaClient, patient: Patient) -> Finding:
    try:
        return clock(await ask_clock(client), _tolerance_s(patient))
    except (KafkaError, ValueError) as error:
        return warning(
            f"the brokers' clock can't be read ({type(error).__name__}: {error})",
            "give the user Describe on the cluster if it is Kafka 3.3 or newer; else compare the "
            "clocks by hand",
        )


async def _expiration(settings: KafkaSettings) -> Finding:
    """Say whether Kafka remembers the workers' identities for long enough."""
    try:
        async with administration(settings) as admin:
            found = await require_expiration(admin)
    except ExpirationError as error:
        return problem(error.fault.what, error.fault.remedy)
    except TopicsError as error:
        return warning(f"{EXPIRATION} was not read: {error.fault.what}", REMEDY)
    if found is None:
        return warning(
            f"{EXPIRATION} can't be read",
            f"give the user DescribeConfigs on the cluster; or look at it by hand, and {REMEDY}",
        )
    return ok(f"{EXPIRATION}={found} is long enough")


async def _rules(settings: WorkerSettings) -> list[Finding]:
    """Say whether the workers that run now would take one with these settings into their group."""
    try:
        async with administration(settings) as admin:
            fault = await difference_from_group(admin, settings)
    except TopicsError as error:
        fault = error.fault
    return [problem(fault.what, fault.remedy)] if fault else []


def clock(seen: Clock, tolerance_s: int) -> Finding:
    """Judge how far the clocks are apart, by how far a signature's time may be from now."""
    side = "ahead of" if seen.ahead_s > 0 else "behind"
    what = f"the brokers' clock is {abs(seen.ahead_s):.1f} s (± {seen.within_s:.1f} s) {side} ours"
    apart_s = abs(seen.ahead_s) - seen.within_s
    remedy = "find out which of the two is wrong, and keep both right with NTP"
    if apart_s > tolerance_s:
        return problem(
            f"{what}, more than LEDGER_SIGNATURE_TOLERANCE_S={tolerance_s}",
            f"{remedy}: if it is ours, every delivery's signature is refused as too old or too new",
        )
    return warning(what, remedy) if apart_s > tolerance_s * _SUSPICIOUS_SHARE else ok(what)


def _tolerance_s(patient: Patient) -> int:
    given = patient.environment.get("LEDGER_SIGNATURE_TOLERANCE_S", "").strip()
    return int(given) if given.isdigit() else DEFAULT_TOLERANCE_S


def protocol(versions: dict[int, tuple[int, int]]) -> Iterator[Finding]:
    """Compare the requests that the programs make with the versions that a broker takes."""
    unknown = [
        request.__name__.removesuffix("Request")
        for request in _SPOKEN
        if not _takes(versions, request.API_KEY, versions_of(request))
    ]
    if unknown:
        yield problem(
            f"the broker takes no version of {', '.join(unknown)} that aiokafka has",
            "use a Kafka from 2.3 to 4.x",
        )
    elif not _takes(versions, JoinGroupRequest.API_KEY, [_STATIC_MEMBERSHIP]):
        yield problem(
            "the broker knows no static members of groups, and a worker is one",
            "use Kafka 2.3 or newer",
        )
    else:
        yield ok("the brokers take the requests that the programs make")


def _takes(versions: dict[int, tuple[int, int]], key: int, ours: Iterable[int]) -> bool:
    least, most = versions.get(key, (0, -1))
    return any(least <= version <= most for version in ours)


def replication(brokers: int, settings: TopicSettings) -> Iterator[Finding]:
    """Compare how often a record is kept with how many brokers there are to keep it."""
    replicas, least = settings.replication_factor, settings.min_insync_replicas
    if replicas > brokers:
        yield problem(
            f"LEDGER_REPLICATION_FACTOR={replicas}, and there are {counted(brokers, 'broker')}",
            "start more brokers, or set it to no more than there are",
        )
    elif replicas < _REPLICAS_IN_PRODUCTION <= brokers:
        yield warning(
            f"LEDGER_REPLICATION_FACTOR={replicas}, though there are "
            f"{counted(brokers, 'broker')}: a disk that dies may take acknowledged records along",
            "set LEDGER_REPLICATION_FACTOR=3 and LEDGER_MIN_INSYNC_REPLICAS=2",
        )
    if 1 < replicas == least:
        yield warning(
            f"LEDGER_MIN_INSYNC_REPLICAS={least}, as many as there are replicas: with one broker "
            "away nothing is acknowledged",
            "set it to one less",
        )
    elif least == 1 < replicas:
        yield warning(
            "LEDGER_MIN_INSYNC_REPLICAS=1: what only one broker has is acknowledged, and lost if "
            "that one is",
            "set it to 2",
        )


def _connects(server: str) -> bool:
    ((host, port, _family),) = collect_hosts([server])
    try:
        with socket.create_connection((host, port), timeout=_CONNECTED_WITHIN_S):
            return True
    except OSError:
        return False
