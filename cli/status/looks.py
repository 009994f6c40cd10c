"""Looks once at a running ledger: at the workers' lags in Kafka, and at the programs' answers.

A *hop* is one of the workers' three agents: ``dedupe``, ``payments`` and ``orders``. A ``Look`` has
the lag of each hop and partition, each program's readiness and numbers, and every problem. If the
ledger fails, no exception is raised: for example, a Kafka that does not answer is a problem in the
look.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import httpx
import msgspec
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from prometheus_client.parser import text_string_to_metric_families

from cli.settings import StatusSettings
from cli.topics.lag import PartitionLag, TopicMissingError, lags
from runtime.kafka.administration import unreachable
from runtime.kafka.reading import clients
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topics import examine_topics

_ANSWER_WITHIN_S: Final = 5.0
# A number that is shown for a program is the sum over a metric's labels, or the metric's largest
# value. The number of keys in a table is not shown, because RocksDB only estimates it, and the
# estimate may be very inaccurate.
_SUMMED: Final[Mapping[str, str]] = {
    "plexy_ledger_ingress_in_flight": "in_flight",
    "plexy_ledger_worker_recovery_records": "recovery_records",
    "plexy_ledger_worker_rebalances_total": "rebalances",
}
_LARGEST: Final[Mapping[str, str]] = {"plexy_ledger_worker_lag_seconds": "lag_seconds"}
_BY_LABEL: Final[Mapping[str, str]] = {
    "plexy_ledger_ingress_deliveries_total": "outcome",
    "plexy_ledger_worker_records_total": "outcome",
    "plexy_ledger_worker_partitions": "role",
}

Numbers = dict[str, float]


class StatusProblem(msgspec.Struct, frozen=True):
    """A problem of a ledger: the problem's stable name, its subject, and a text for the user."""

    code: str
    subject: str
    detail: str


class HopLag(msgspec.Struct, frozen=True):
    """One hop, the topic that it folds, and how many of the topic's records it has not folded."""

    hop: str
    topic: str
    lag_records: int
    partitions: list[PartitionLag]


class ProgramStatus(msgspec.Struct, frozen=True):
    """One program; ``numbers`` is ``None`` if the program's metrics can't be read."""

    name: str
    url: str
    ready: bool
    numbers: Numbers | None


class Look(msgspec.Struct, frozen=True):
    """The state of a ledger at one moment."""

    hops: list[HopLag]
    programs: list[ProgramStatus]
    problems: list[StatusProblem]

    @property
    def well(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


class Address(msgspec.Struct, frozen=True):
    """The addresses of a program; ``metrics_url`` is empty if the program serves no metrics."""

    name: str
    url: str
    metrics_url: str
    token: str = ""


async def look(settings: StatusSettings, addresses: Sequence[Address]) -> Look:
    """Look at Kafka and all programs once, concurrently."""
    kafka = asyncio.create_task(_look_at_kafka(settings))
    async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S, trust_env=False) as client:
        asked = await asyncio.gather(*(_ask(client, address) for address in addresses))
    hops, trouble = await kafka
    problems = [*trouble, *(problem for _, problem in asked if problem)]
    return Look(hops, [program for program, _ in asked], problems)


async def _look_at_kafka(settings: StatusSettings) -> tuple[list[HopLag], list[StatusProblem]]:
    names, hops = settings.names, list[HopLag]()
    topics = {"dedupe": names.webhooks, "payments": names.events, "orders": names.payments}
    try:
        seen = await examine_topics(settings)
        wrong = [StatusProblem(code, "Kafka", str(fault)) for code, fault in seen.by_code()]
        if seen.lost or seen.missing:
            return hops, wrong
        async with clients(settings) as (admin, consumer):
            for hop, topic in topics.items():
                found = await lags(admin, consumer, settings.group_id, topic)
                hops.append(HopLag(hop, topic, sum(each.records for each in found), found))
    except TopicMissingError as error:
        return hops, [StatusProblem("topic_missing", "Kafka", str(error))]
    except TopicsError as error:
        if isinstance(error.__cause__, TopicAuthorizationFailedError):
            return hops, [StatusProblem("not_allowed", "Kafka", str(error))]
        return hops, [StatusProblem("kafka_unavailable", "Kafka", str(error))]
    except KafkaError as error:
        return hops, [
            StatusProblem("kafka_unavailable", "Kafka", str(unreachable(settings, error)))
        ]
    return hops, [*wrong, *_unfolded_deletions(hops), *_lost(hops)]


def _unfolded_deletions(hops: Sequence[HopLag]) -> Iterator[StatusProblem]:
    """Yield a problem for each partition that lost unfolded records, in topics between two hops.

    This function skips the log of record (the first hop's topic), because ``examine_topics``
    already reports its deleted records.
    """
    for hop in hops[1:]:
        for each in hop.partitions:
            if each.deleted:
                detail = (
                    f"{each.deleted} records of {hop.topic} partition {each.partition} were "
                    "deleted before they were folded: `plexy-ledger rebuild` folds the whole log "
                    "of record from scratch"
                )
                yield StatusProblem("records_deleted", hop.hop, detail)


def _lost(hops: Sequence[HopLag]) -> Iterator[StatusProblem]:
    """Yield a problem for each partition whose end is below its committed offset.

    The end was read after the committed offset, so the partition has lost records.
    """
    for hop in hops:
        for at in hop.partitions:
            if at.committed > at.end:
                detail = (
                    f"{hop.topic} partition {at.partition} is folded up to offset {at.committed}, "
                    f"but ends at {at.end}: it has lost records. Restore them from a replica or a "
                    "backup; otherwise `plexy-ledger rebuild` folds the remaining log"
                )
                yield StatusProblem("records_lost", hop.hop, detail)


async def _ask(
    client: httpx.AsyncClient, address: Address
) -> tuple[ProgramStatus, StatusProblem | None]:
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    problem = None
    try:
        answer = await client.get(f"{address.url}/readyz")
        if answer.status_code != httpx.codes.OK:
            problem = StatusProblem("not_ready", f"{address.name} {address.url}", _said(answer))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        detail = f"no answer ({type(error).__name__}); check that it runs, and check its address"
        problem = StatusProblem("no_answer", f"{address.name} {address.url}", detail)
    numbers = (
        None
        if problem and problem.code == "no_answer"
        else await _numbers(client, address.metrics_url, headers)
    )
    return ProgramStatus(address.name, address.url, problem is None, numbers), problem


def _said(answer: httpx.Response) -> str:
    try:
        return f"{answer.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text:.200}"


async def _numbers(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str]
) -> Numbers | None:
    if not url:
        return None
    try:
        answer = await client.get(url, headers=headers)
        answer.raise_for_status()
        return numbers_of(answer.text)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None


def numbers_of(page: str) -> Numbers:
    """Return the numbers on a page of metrics; raise ``ValueError`` for any other page."""
    numbers: Numbers = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in _SUMMED:
                name = _SUMMED[sample.name]
                numbers[name] = numbers.get(name, 0) + sample.value
            elif sample.name in _LARGEST:
                name = _LARGEST[sample.name]
                numbers[name] = max(numbers.get(name, 0), sample.value)
            elif sample.name in _BY_LABEL:
                value = sample.labels[_BY_LABEL[sample.name]]
                numbers[value] = numbers.get(value, 0.0) + sample.value
    return numbers
