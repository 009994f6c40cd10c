"""Create the topics, or check those that are there.

In: settings and the topics that the ledger describes. Out: which were created, which were found.
Never: a change to an existing topic: one that is wrong is an error that says what to do, because a
partition count is for life and a shorter retention loses the log of record. Never an empty topic in
the place of a lost one: workers that go on behind it would show a state with a hole.
"""

import asyncio
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NamedTuple, Self, TypeVar

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidConfigurationError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from ledger.topics import Topic, TopicNames, TopicSetting, all_topics, min_insync_replicas
from runtime.kafka.client_log import ClientLog
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.internals import client_of
from runtime.kafka.topic_states import (
    Fault,
    TopicState,
    count_fault,
    deletion_fault,
    faults,
    read_begins,
    read_states,
)
from runtime.settings import SettingsError, setting

_GROUP: Final = "plexy-ledger"
# Longer than it takes to find new leaders when a broker dies.
_ANSWERED_WITHIN_S: Final = 15.0
_HIDDEN: Final = (
    "If they exist, this user lacks the right Describe on them (docs/kafka.md has the rights)"
)
_WHO_DELETED: Final = "find out who deleted them, or which setting did"

REFUSED: Final = "Kafka does not let us in"
_RENEW: Final = (
    "renew the certificate that has expired, the brokers' or that of "
    "LEDGER_KAFKA_CERTIFICATE_FILE: the programs read the files for each connection"
)
_CORRECT: Final = (
    "correct LEDGER_KAFKA_USERNAME, and LEDGER_KAFKA_PASSWORD or the file in "
    "LEDGER_KAFKA_PASSWORD_FILE, which the programs read for each connection"
)
_TRUST: Final = "set LEDGER_KAFKA_CA_FILE to the authority that signed the brokers' certificates"
# What a client says of a refusal, the more special first, and what to do about it.
_REFUSALS: Final = (
    (re.compile("(?i)certificate.(has.)?expired"), _RENEW),
    (re.compile("(?i)certificate.verify.failed"), _TRUST),
    (re.compile("(?i)authentication.failed"), _CORRECT),
)

T = TypeVar("T")


class TopicsError(RuntimeError):
    """A topic can't be created, or is not as the ledger needs it; the message says what to do."""


class TopicsMissingError(TopicsError):
    """A topic is not there; the message says whether it was, and what to do."""


class TopicSettings(KafkaSettings, frozen=True, kw_only=True):
    """How topics are created; ``partitions`` is for life."""

    version: Annotated[
        int,
        setting(
            "which version of what follows from the log of record; `rebuild` makes the next one",
            ge=1,
            le=1000,
        ),
    ] = 1
    partitions: Annotated[
        int, setting("partitions of every topic; can't be changed later", ge=1, le=1000)
    ] = 4
    replication_factor: Annotated[
        int, setting("replicas of every topic; 3 in production", ge=1, le=10)
    ] = 1
    min_insync_replicas: Annotated[
        int, setting("replicas that must have a record before it is kept", ge=1, le=10)
    ] = 1

    def check(self) -> None:
        """Refuse more in-sync replicas than there are replicas: nothing could be written."""
        super().check()
        if self.min_insync_replicas > self.replication_factor:
            raise SettingsError(
                f"LEDGER_MIN_INSYNC_REPLICAS={self.min_insync_replicas} is more than "
                f"LEDGER_REPLICATION_FACTOR={self.replication_factor}: no record could be written"
            )

    @property
    def names(self) -> TopicNames:
        """The topics' names."""
        return TopicNames(self.topic_prefix, self.version)

    @property
    def group_id(self) -> str:
        """The consumer group of this version's workers, and the changelogs' first name.

        Ledgers with different prefixes share nothing, and versions of one only the log of record.
        """
        version = f"-v{self.version}" if self.version > 1 else ""
        return self.topic_prefix + _GROUP + version

    @property
    def record_topic(self) -> Topic:
        """The topic that records the number of partitions; it has no records."""
        return Topic(name=self.names.made_with(self.partitions), spare_partitions=True)

    def of_version(self, version: int) -> Self:
        """Return the settings of another version of the same ledger."""
        return msgspec.structs.replace(self, version=version)


class TopicsReport(msgspec.Struct, frozen=True):
    """The cluster, the topics that were created, and those that were there and are right."""

    cluster_id: str
    created: list[str]
    found: list[str]


async def ensure_topics(
    settings: TopicSettings, *, create: bool = True, restores_log: bool = False
) -> TopicsReport:
    """Create what is missing, check what is there; ``TopicsError`` if a topic is not as needed.

    ``restores_log``: a log that older versions have folded is made anew, by who brings it back.
    """
    wanted = all_topics(settings.names, settings.group_id)
    async with administration(settings) as admin:
        oldest = settings.version if restores_log else 1
        return await _ensure(admin, settings, wanted, create=create, oldest=oldest)


class Leftovers(msgspec.Struct, frozen=True):
    """Which topics of a version are missing, and whether anybody has begun with it."""

    missing: tuple[str, ...]
    begun: bool


async def find_leftovers(settings: TopicSettings) -> Leftovers:
    """Look for a version: it is begun if a topic of its own is there, or a commit of its group."""
    wanted = [topic.name for topic in all_topics(settings.names, settings.group_id)]
    async with administration(settings) as admin:
        existing = await _existing(admin)
        own = set(wanted) - set(settings.names.shared)
        begun = bool(own & existing) or await _committed(admin, settings.group_id)
    return Leftovers(tuple(name for name in wanted if name not in existing), begun)


class Examination(msgspec.Struct, frozen=True):
    """What is missing or wrong, and how each topic is that is there.

    ``lost`` is what of the ``missing`` was there once: it is not to be created anew, empty.
    ``miscounted`` says which numbers of partitions are wrong; ``faults``, which settings and
    replicas; ``deletions``, which topics have lost records that are kept for ever, and
    ``deleted_records`` how many each one has.
    """

    missing: tuple[str, ...]
    lost: tuple[str, ...]
    miscounted: tuple[Fault, ...]
    faults: tuple[Fault, ...]
    states: tuple[TopicState, ...]
    deletions: tuple[Fault, ...] = ()
    deleted_records: Mapping[str, int] = {}


async def examine_topics(settings: TopicSettings) -> Examination:
    """Look at every topic, and name all that is not as needed; creates nothing.

    ``TopicsError`` if Kafka does not answer, or does not tell.
    """
    wanted = all_topics(settings.names, settings.group_id)
    async with administration(settings) as admin:
        existing = await _existing(admin)
        missing = [topic for topic in wanted if topic.name not in existing]
        lost = await _lost(admin, settings, missing, oldest=1)
        names = [topic.name for topic in wanted if topic.name in existing]
        states = await _states(admin, names) if names else []
        kept = [topic.name for topic in wanted if topic.keeps_its_start and topic.name in names]
        begins = await _begins(admin, kept)
    if not settings.names.recorded_partitions(existing):
        missing = [settings.record_topic, *missing]
    return Examination(
        missing=tuple(topic.name for topic in missing),
        lost=tuple(topic.name for topic in lost.topics) if lost else (),
        miscounted=tuple(_partition_faults(settings, existing, wanted, counts_of(states))),
        faults=tuple(_faults(settings, wanted, states)),
        states=tuple(states),
        deletions=tuple(_deletions(settings.names, begins)),
        deleted_records={name: sum(found.values()) for name, found in begins.items()},
    )


def counts_of(states: Iterable[TopicState]) -> dict[str, int]:
    """Return how many partitions each topic has."""
    return {state.name: len(state.partitions) for state in states}


def partition_faults(
    names: TopicNames,
    existing: Iterable[str],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
    expected: int | None = None,
) -> Iterator[Fault]:
    """Yield what is wrong with the numbers of partitions, by what the ledger was made with.

    A ledger of an earlier state has no record of it yet. Its topics were made alike, and Kafka can
    only raise their numbers: so it was made with the smallest one. ``expected`` is the setting.
    """
    recorded = names.recorded_partitions(existing)
    if len(recorded) > 1:
        records = ", ".join(map(names.made_with, recorded))
        yield Fault(
            f"{records} record different numbers of partitions for one ledger",
            "find out with which one it was made, and delete the other topics of these",
        )
        return
    made_with = min(recorded or counts.values(), default=expected)
    if made_with is None:
        return
    if expected is not None and made_with != expected:
        yield Fault(
            f"this ledger has {made_with} partitions, and LEDGER_PARTITIONS is {expected}",
            f"set LEDGER_PARTITIONS={made_with}",
        )
    for topic in topics:
        count = counts.get(topic.name, made_with)
        if count < made_with or (count > made_with and not topic.spare_partitions):
            yield count_fault(topic.name, count, made_with)


@asynccontextmanager
async def administration(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client; ``TopicsError`` if Kafka does not answer."""
    admin = AIOKafkaAdminClient(**settings.client_options(), request_timeout_ms=15_000)
    with ClientLog() as said:
        try:
            await admin.start()
        except KafkaError as error:
            advertised = _advertised(admin, settings)
            raise TopicsError(unreachable(settings, error, said.last_line, advertised)) from error
    try:
        yield admin
    except TopicsError as error:
        cause, advertised = error.__cause__, _advertised(admin, settings)
        # The address that we had answers, and the one that the broker names does not.
        if advertised and isinstance(cause, NodeNotReadyError | KafkaConnectionError):
            raise TopicsError(unreachable(settings, cause, str(error), advertised)) from error
        raise
    finally:
        await admin.close()


def _advertised(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> str:
    """Return the addresses that the brokers gave for themselves, besides those that we had."""
    brokers = {f"{each.host}:{each.port}" for each in client_of(admin).cluster.brokers()}
    return ",".join(sorted(brokers.difference(settings.bootstrap_servers)))


def unreachable(
    settings: KafkaSettings, error: Exception, said: str = "", advertised: str = ""
) -> str:
    """Say that Kafka does not answer, where it was looked for, and what to do."""
    brokers = ",".join(settings.bootstrap_servers)
    why = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if advertised:
        return (
            f"Kafka answers at {brokers}, and names its brokers as {advertised}, not all of which "
            f"can be reached from here ({why}); correct `advertised.listeners` of the brokers, or "
            "let this machine reach those addresses"
        )
    for refusal, remedy in _REFUSALS:
        if refusal.search(why):
            return f"{REFUSED} at {brokers} ({why}); {remedy}"
    return (
        f"Kafka does not answer at {brokers} ({why}); start it "
        "(`plexy-ledger kafka` runs an embedded one) or set LEDGER_KAFKA_BOOTSTRAP to a running one"
    )


async def _ensure(
    admin: AIOKafkaAdminClient,
    settings: TopicSettings,
    wanted: Sequence[Topic],
    *,
    create: bool,
    oldest: int,
) -> TopicsReport:
    existing = await _existing(admin)
    missing = [topic for topic in wanted if topic.name not in existing]
    if lost := await _lost(admin, settings, missing, oldest):
        raise lost_error([topic.name for topic in lost.topics], lost.group)
    found = [topic.name for topic in wanted if topic.name in existing]
    # Before anything is made: what is recorded now holds for good.
    counts = counts_of(await _states(admin, found) if found else [])
    for fault in _partition_faults(settings, existing, wanted, counts):
        raise TopicsError(str(fault))
    if not settings.names.recorded_partitions(existing):
        # First, so that no topic is there without it.
        missing = [settings.record_topic, *missing]
    if missing and not create:
        raise missing_error([topic.name for topic in missing])
    for topic in missing:
        await _create(admin, settings, topic)
    if missing:
        # Somebody else may have recorded another number at the same time.
        existing = await _existing(admin)
        for fault in _partition_faults(settings, existing, [], {}):
            raise TopicsError(str(fault))
    states = await _states(admin, [topic.name for topic in wanted])
    for fault in _faults(settings, wanted, states):
        raise TopicsError(str(fault))
    everything = [settings.record_topic, *wanted]
    created = {topic.name for topic in missing}
    cluster = await answer(admin.describe_cluster, "the cluster can't be described")
    return TopicsReport(
        cluster_id=cluster["cluster_id"],
        created=[topic.name for topic in everything if topic.name in created],
        found=[topic.name for topic in everything if topic.name not in created],
    )


class _Lost(NamedTuple):
    """Topics that were there once, and the group that can't have committed without them."""

    topics: list[Topic]
    group: str


async def _lost(
    admin: AIOKafkaAdminClient, settings: TopicSettings, missing: Sequence[Topic], oldest: int
) -> _Lost | None:
    """Return what of that which is missing was there once; ``None`` if nothing was.

    A version's own topics are judged by its own group, those that all share by every one from the
    ``oldest`` version on.
    """
    shared = [topic for topic in missing if topic.name in settings.names.shared]
    for version in range(settings.version, oldest - 1, -1):
        lost = list(missing) if version == settings.version else shared
        group = settings.of_version(version).group_id
        if lost and await _committed(admin, group):
            return _Lost(lost, group)
    return None


def missing_error(names: Iterable[str]) -> TopicsMissingError:
    """Return the error of topics that were never created."""
    return TopicsMissingError(
        f"missing topics: {', '.join(names)}; create them with `plexy-ledger topics`. {_HIDDEN}"
    )


def lost_error(names: Iterable[str], group: str) -> TopicsMissingError:
    """Return the error of topics that a group has folded, and that are not there any more."""
    return TopicsMissingError(
        f"missing topics: {', '.join(names)}. The workers of {group} have folded records before, "
        "so these topics were there and are lost. What follows from the log of record is folded "
        f"anew by `plexy-ledger rebuild`; the log itself comes from a backup. {_HIDDEN}"
    )


async def _create(admin: AIOKafkaAdminClient, settings: TopicSettings, topic: Topic) -> None:
    needed = (*topic.settings, min_insync_replicas(settings.min_insync_replicas))
    response = await _ask_to_create(admin, settings, topic, needed)
    if any(code == InvalidConfigurationError.errno for _, code, *_ in response.topic_errors):
        # A broker that does not know all of them.
        known = [setting for setting in needed if not setting.newer]
        response = await _ask_to_create(admin, settings, topic, known)
    for name, code, *rest in response.topic_errors:
        # Another worker that starts at the same time may have been faster.
        if code and code != TopicAlreadyExistsError.errno:
            reason = (rest[0] if rest else None) or for_code(code).__name__
            raise TopicsError(
                f"topic {name} can't be created: {reason} (replication factor "
                f"{settings.replication_factor}: LEDGER_REPLICATION_FACTOR)"
            )


async def _ask_to_create(
    admin: AIOKafkaAdminClient,
    settings: TopicSettings,
    topic: Topic,
    needed: Iterable[TopicSetting],
) -> Any:
    config = {setting.name: setting.value for setting in needed}
    new = NewTopic(
        topic.name, settings.partitions, settings.replication_factor, topic_configs=config
    )
    return await admin.create_topics([new])


async def answer(ask: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Ask until there is an answer; ``TopicsError`` if none comes.

    Each question goes to any of the brokers. That one may be away, or new to its task, or may not
    know yet (``None``) of what was made by way of another.
    """
    deadline = time.monotonic() + _ANSWERED_WITHIN_S
    while True:
        cause = None
        reason = f"no broker knew it within {_ANSWERED_WITHIN_S:.0f} s"
        try:
            if (answer := await ask()) is not None:
                return answer
        except KafkaError as error:
            cause, reason = error, repr(error)
            if isinstance(error, TopicAuthorizationFailedError):
                reason += "; give this user Describe and DescribeConfigs on all of them"
            if not error.retriable:
                raise TopicsError(f"{what}: {reason}") from error
        if time.monotonic() > deadline:
            raise TopicsError(f"{what}: {reason}") from cause
        await asyncio.sleep(0.05)


async def _existing(admin: AIOKafkaAdminClient) -> set[str]:
    return set(await answer(admin.list_topics, "the topics can't be listed"))


async def _committed(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Return whether the group has committed anything.

    A new cluster makes the topic of the commits only when it is first asked: that is waited for.
    """
    offsets = await answer(
        lambda: admin.list_consumer_group_offsets(group),
        f"no broker coordinates the group {group}",
    )
    return any(each.offset > 0 for each in offsets.values())


async def _states(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[TopicState]:
    return await answer(
        lambda: read_states(admin, names), f"the topics {', '.join(names)} can't be described"
    )


async def _begins(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> Mapping[str, Mapping[int, int]]:
    if not names:
        return {}
    return await answer(
        lambda: read_begins(admin, names), f"the beginnings of {', '.join(names)} can't be read"
    )


def _deletions(names: TopicNames, begins: Mapping[str, Mapping[int, int]]) -> Iterator[Fault]:
    for topic, found in begins.items():
        if topic == names.webhooks:
            remedy = (
                f"{_WHO_DELETED}, then bring the log into a new ledger from a backup, with "
                "`plexy-ledger import-log`"
            )
        elif topic == names.rejected:
            remedy = f"{_WHO_DELETED}; the deliveries that ingress had refused are lost"
        else:
            remedy = f"{_WHO_DELETED}, then make the topic anew with `plexy-ledger rebuild`"
        if fault := deletion_fault(topic, found, remedy):
            yield fault


def _partition_faults(
    settings: TopicSettings,
    existing: Iterable[str],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
) -> Iterator[Fault]:
    return partition_faults(settings.names, existing, topics, counts, settings.partitions)


def _faults(
    settings: TopicSettings, wanted: Sequence[Topic], states: Sequence[TopicState]
) -> Iterator[Fault]:
    topics = {topic.name: topic for topic in wanted}
    for state in states:
        yield from faults(
            state,
            topics[state.name],
            replication_factor=settings.replication_factor,
            in_sync=settings.min_insync_replicas,
        )
