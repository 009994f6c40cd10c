"""Checks whether enough brokers answer, accept the programs' requests, and have the right time.

The checks store the cluster that answered in the ``Patient``. They write nothing to Kafka.
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

from cli.doctor.checks import CheckResult, Cluster, Patient, ok, problem, problem_of, warning
from cli.doctor.clock import ClockOffset, ask_clock
from cli.printing import counted
from ledger.signature import DEFAULT_TOLERANCE_S
from processors.settings import WorkerSettings
from runtime.fault import Fault
from runtime.fold_rules import difference_from_group
from runtime.kafka.administration import SILENT, administration, advertised_by, unreachable
from runtime.kafka.client_log import ClientLog
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.credentials import CredentialsError
from runtime.kafka.expiries import expiring
from runtime.kafka.identities import EXPIRATION, ExpirationError, require_expiration
from runtime.kafka.internals import versions_of
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topics import TopicSettings

_CONNECTED_WITHIN_S: Final = 3.0
_REQUEST_MS: Final = 10_000
# Synchronized clocks differ by milliseconds. So if two clocks differ by more than this share of the
# tolerance, one of the clocks is wrong.
_SUSPICIOUS_SHARE: Final = 0.1
_REPLICAS_IN_PRODUCTION: Final = 3
# Since version 5 of JoinGroup (Kafka 2.3), a member can keep its name across restarts.
_STATIC_MEMBERSHIP: Final = 5
_REQUESTS: Final = (
    MetadataRequest,
    ProduceRequest,
    FetchRequest,
    FindCoordinatorRequest,
    JoinGroupRequest,
    InitProducerIdRequest,
)


def check_kafka(patient: Patient) -> Iterator[CheckResult]:
    """Check Kafka through the clients that the programs use, and set ``patient.cluster``."""
    if not patient.readers("LEDGER_KAFKA_BOOTSTRAP"):
        return
    settings = KafkaSettings.from_environment(patient.environment)
    try:
        settings.client_options()
    except CredentialsError as error:
        yield problem_of(error.fault)
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


async def _look(settings: KafkaSettings, patient: Patient) -> list[CheckResult]:
    client = AIOKafkaClient(**settings.client_options(), request_timeout_ms=_REQUEST_MS)
    with ClientLog() as log:
        try:
            await client.bootstrap()
            return await _ask(client, settings, patient)
        except KafkaError as error:
            advertised = advertised_by(client, settings)
            reason = unreachable(settings, error, log.last_line, advertised)
            return [_unreachable(settings, patient, reason)]
        finally:
            await client.close()


def _unreachable(settings: KafkaSettings, patient: Patient, fault: Fault) -> CheckResult:
    what, remedy = fault.what, fault.remedy
    if settings.kafka_bootstrap is None and "run" in patient.programs:
        remedy = f"do nothing for `plexy-ledger run`, which starts Kafka; otherwise {remedy}"
        return warning(what, remedy)
    if what.startswith(SILENT) and any(map(_connects, settings.bootstrap_servers)):
        remedy = (
            "a program listens there: if it is Kafka, it uses another protocol or refuses this "
            "program; check LEDGER_KAFKA_TLS, _CA_FILE, _SASL_MECHANISM, _USERNAME and _PASSWORD. "
            f"Otherwise {remedy}"
        )
    return problem(what, remedy)


async def _ask(
    client: AIOKafkaClient, settings: KafkaSettings, patient: Patient
) -> list[CheckResult]:
    node = client.get_random_node()
    metadata = (await client.send(node, MetadataRequest([]))).to_object()
    brokers = metadata["brokers"]
    patient.cluster = Cluster(metadata["cluster_id"], len(brokers))
    known = counted(len(brokers), "broker")
    found = [ok(f"Kafka {metadata['cluster_id']} answers, with {known}")]
    found += [
        warning(
            f"{server}, of LEDGER_KAFKA_BOOTSTRAP, does not answer",
            "start that broker, or correct its address: each program asks every address of "
            "LEDGER_KAFKA_BOOTSTRAP when it starts",
        )
        for server in settings.bootstrap_servers
        if not _connects(server)
    ]
    for broker in brokers:
        if not await client.ready(broker["node_id"]):
            found.append(
                problem(
                    f"broker {broker['node_id']} can't be reached at {broker['host']}:"
                    f"{broker['port']}, the address that it advertises",
                    "start that broker, correct its `advertised.listeners`, or open the network to "
                    "that address",
                )
            )
    versions = await client.send(node, ApiVersionRequest())
    found += protocol({key: (least, most) for key, least, most in versions.api_versions})
    found.append(await _clock(client, patient))
    return found


async def _clock(client: AIOKafkaClient, patient: Patient) -> CheckResult:
    try:
        return clock(await ask_clock(client), _tolerance_s(patient))
    except (KafkaError, ValueError) as error:
        return warning(
            f"the brokers' clock can't be read ({type(error).__name__}: {error})",
            "with Kafka 3.3 or newer, grant the user the operation Describe on the cluster; "
            "otherwise compare the clocks by hand",
        )


async def _expiration(settings: KafkaSettings) -> CheckResult:
    """Check whether Kafka remembers the workers' identities for long enough."""
    try:
        async with administration(settings) as admin:
            found = await require_expiration(admin)
    except (ExpirationError, TopicsError) as error:
        return problem_of(error.fault)
    return ok(f"{EXPIRATION}={found} is long enough")


async def _rules(settings: WorkerSettings) -> list[CheckResult]:
    """Check whether the running workers would accept a worker with these settings as a member."""
    try:
        async with administration(settings) as admin:
            fault = await difference_from_group(admin, settings)
    except TopicsError as error:
        fault = error.fault
    return [problem_of(fault)] if fault else []


def clock(found: ClockOffset, tolerance_s: int) -> CheckResult:
    """Judge the difference between the clocks by the tolerance for the time in a signature."""
    apart_s, within_s = abs(found.ahead_s), found.within_s
    side = "ahead of" if found.ahead_s > 0 else "behind"
    what = f"the brokers' clock is {apart_s:.1f} s (± {within_s:.1f} s) {side} ours"
    remedy = "find out which of the two clocks is wrong, and keep both right with NTP"
    if apart_s - within_s > tolerance_s:
        return problem(
            f"{what}, more than LEDGER_SIGNATURE_TOLERANCE_S={tolerance_s}",
            f"{remedy}: if ours is wrong, ingress refuses every delivery as too old or too new",
        )
    is_off = apart_s - within_s > tolerance_s * _SUSPICIOUS_SHARE
    return warning(what, remedy) if is_off else ok(what)


def _tolerance_s(patient: Patient) -> int:
    given = patient.environment.get("LEDGER_SIGNATURE_TOLERANCE_S", "").strip()
    return int(given) if given.isdigit() else DEFAULT_TOLERANCE_S


def protocol(versions: dict[int, tuple[int, int]]) -> Iterator[CheckResult]:
    """Compare the versions of the programs' requests with the versions that a broker accepts."""
    refused = [
        request.__name__.removesuffix("Request")
        for request in _REQUESTS
        if not _accepts(versions, request.API_KEY, versions_of(request))
    ]
    if refused:
        yield problem(
            f"the broker accepts no version of {', '.join(refused)} that aiokafka can send",
            "use Kafka 2.3 to 4.x",
        )
    elif not _accepts(versions, JoinGroupRequest.API_KEY, [_STATIC_MEMBERSHIP]):
        yield problem(
            "the broker does not support static members of groups, and workers are such members",
            "use Kafka 2.3 or newer",
        )
    else:
        yield ok("the brokers accept the programs' requests")


def _accepts(versions: dict[int, tuple[int, int]], key: int, ours: Iterable[int]) -> bool:
    least, most = versions.get(key, (0, -1))
    return any(least <= version <= most for version in ours)


def replication(brokers: int, settings: TopicSettings) -> Iterator[CheckResult]:
    """Compare the number of replicas with the number of brokers."""
    replicas, least = settings.replication_factor, settings.min_insync_replicas
    if replicas > brokers:
        yield problem(
            f"LEDGER_REPLICATION_FACTOR={replicas}, but Kafka has {counted(brokers, 'broker')}",
            "start more brokers, or set the factor to at most the number of brokers",
        )
    elif replicas < _REPLICAS_IN_PRODUCTION <= brokers:
        yield warning(
            f"LEDGER_REPLICATION_FACTOR={replicas}, though Kafka has {counted(brokers, 'broker')}: "
            "the loss of one disk may lose acknowledged records",
            "set LEDGER_REPLICATION_FACTOR=3 and LEDGER_MIN_INSYNC_REPLICAS=2",
        )
    if 1 < replicas == least:
        yield warning(
            f"LEDGER_MIN_INSYNC_REPLICAS={least} equals the number of replicas: while one broker "
            "is down, Kafka acknowledges no record",
            f"set it to {least - 1}",
        )
    elif least == 1 < replicas:
        yield warning(
            "LEDGER_MIN_INSYNC_REPLICAS=1: Kafka acknowledges a record that only one broker has, "
            "and the record is lost if that broker loses its disk",
            "set it to 2",
        )


def _connects(server: str) -> bool:
    ((host, port, _family),) = collect_hosts([server])
    try:
        with socket.create_connection((host, port), timeout=_CONNECTED_WITHIN_S):
            return True
    except OSError:
        return False
