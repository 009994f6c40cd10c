"""Creates a ledger's topics, or checks the existing topics.

Input: settings, which describe the topics. Output: the created topics and the existing topics, or a
``TopicsError`` with the remedy. Invariants: An existing topic is never changed, because its number
of partitions decides the partition of each key, and a shorter retention would delete records. A
lost topic is never replaced by an empty topic, because workers that used the empty topic would show
an incomplete state.
"""

from collections.abc import (
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Annotated, Any, Final, NamedTuple, Self

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidConfigurationError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from ledger.topics import Topic, TopicNames, TopicSetting, all_topics, log_topics
from runtime.fault import Fault
from runtime.kafka.administration import administration, answer
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.internals import client_of
from runtime.kafka.topic_looks import (
    WHO_DELETED,
    Examination,
    Made,
    TopicsError,
    look_at_topics,
)
from runtime.kafka.topic_records import lost_fault, missing_fault
from runtime.kafka.topic_states import deletion_fault, read_begins
from runtime.settings import SettingsError, setting

_GROUP: Final = "plexy-ledger"


class TopicSettings(KafkaSettings, frozen=True, kw_only=True):
    """The settings with which topics are created; ``partitions`` can't be changed later."""

    version: Annotated[
        int,
        setting(
            "version of the topics that are folded from the log; `rebuild` makes the next version",
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
        int, setting("replicas that must have a record before Kafka acknowledges it", ge=1, le=10)
    ] = 1

    def check(self) -> None:
        """Refuse a minimum of in-sync replicas that is higher than the number of replicas.

        With such settings, no record could be written.
        """
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
        """The consumer group of this version's workers; changelogs' names begin with this id.

        Ledgers with different prefixes share nothing. The versions of a ledger share only the
        topics in ``names.shared``.
        """
        version = f"-v{self.version}" if self.version > 1 else ""
        return self.topic_prefix + _GROUP + version

    @property
    def made(self) -> Made:
        """The settings with which a ledger is created."""
        return Made(
            partitions=self.partitions,
            replication_factor=self.replication_factor,
            min_insync_replicas=self.min_insync_replicas,
        )

    @property
    def topics(self) -> list[Topic]:
        """Every topic of this version whose name is known before the topic is created."""
        return all_topics(self.names, self.group_id)

    def of_version(self, version: int) -> Self:
        """Return the settings of a different version of the same ledger."""
        return msgspec.structs.replace(self, version=version)


class TopicsReport(msgspec.Struct, frozen=True):
    """The cluster, the created topics, and the topics that existed and are as expected."""

    cluster_id: str
    created: list[str]
    found: list[str]


async def ensure_topics(
    settings: TopicSettings, *, create: bool = True, restores_log: bool = False
) -> TopicsReport:
    """Create the missing topics, and check all; raise ``TopicsError`` if a topic is wrong.

    ``restores_log`` is for the program that restores the log. That program may create the log again
    although older versions of the ledger have folded a log. It calls ``record_log`` once the
    restored log is complete.
    """
    async with administration(settings) as admin:
        return await _ensure(admin, settings, create=create, restores_log=restores_log)


async def check_topics(settings: TopicSettings) -> TopicsReport:
    """Check everything that `status` checks; create nothing."""
    async with administration(settings) as admin:
        report = await _ensure(admin, settings, create=False, restores_log=False)
        _refuse(*(await examine(admin, settings)).deletions)
        return report


async def record_log(settings: TopicSettings) -> None:
    """Record that a restored log is now the log of this ledger.

    Raise ``TopicsError`` if a topic is not as expected; topics may have changed during the restore.
    """
    async with administration(settings) as admin:
        seen = await _look(admin, settings, restores_log=True)
        _refuse(*seen.fatal, *seen.faults)
        if topic_id := seen.ids[settings.names.webhooks]:
            await _create(admin, settings, _record(settings.names.log_record(topic_id)))


class Leftovers(msgspec.Struct, frozen=True):
    """The missing topics of a version, and whether the version was begun."""

    missing: tuple[str, ...]
    begun: bool


async def find_leftovers(settings: TopicSettings) -> Leftovers:
    """Look for a version's own topics, for the record of their ids, and for its group's commit."""
    wanted = [topic.name for topic in settings.topics]
    async with administration(settings) as admin:
        existing = set(await answer(admin.list_topics, "the topics can't be listed"))
        own = set(wanted) - set(settings.names.shared)
        begun = bool(own & existing) or bool(settings.names.recorded_topics(existing))
        begun = begun or await _committed(admin, settings.group_id)
    return Leftovers(tuple(name for name in wanted if name not in existing), begun)


async def examine_topics(settings: TopicSettings) -> Examination:
    """Compare every topic of a version with the expected topic; create nothing.

    Raise ``TopicsError`` if Kafka does not answer, or refuses the request.
    """
    async with administration(settings) as admin:
        return await examine(admin, settings)


async def examine_log(settings: KafkaSettings) -> Examination:
    """Examine the topics to which ingress appends, with no more rights than ingress has."""
    names = settings.names
    async with administration(settings) as admin:
        client = client_of(admin)
        return await answer(
            lambda: look_at_topics(client, names, log_topics(names), Made()),
            f"the topics {', '.join(names.shared)} can't be described",
        )


async def examine(admin: AIOKafkaAdminClient, settings: TopicSettings) -> Examination:
    """Do the work of ``examine_topics`` with a connected client."""
    seen = await _look(admin, settings)
    ids = seen.ids
    kept = [topic.name for topic in settings.topics if topic.keeps_its_start and topic.name in ids]
    begins = await _begins(admin, kept)
    return msgspec.structs.replace(
        seen,
        deletions=tuple(_deletions(settings.names, begins)),
        deleted_records={name: sum(found.values()) for name, found in begins.items()},
    )


async def _ensure(
    admin: AIOKafkaAdminClient, settings: TopicSettings, *, create: bool, restores_log: bool
) -> TopicsReport:
    seen = await _look(admin, settings, restores_log=restores_log)
    created: list[str] = []
    topics = {topic.name: topic for topic in settings.topics}
    # The second pass of this loop creates the topic that records the log's id, because the id is
    # known only once the log exists.
    while absent := seen.absent:
        # These faults are raised first, because a topic that records a wrong fact can't be
        # corrected.
        _refuse(*seen.lost.values(), *seen.replaced.values(), *seen.miscounted)
        if not create:
            _refuse(missing_fault(absent))
        for name in absent:
            await _create(admin, settings, topics.get(name) or _record(name))
        created += absent
        seen = await _look(admin, settings, after=absent, restores_log=restores_log)
    _refuse(*seen.fatal, *seen.faults)
    cluster = await answer(admin.describe_cluster, "the cluster can't be described")
    names = [settings.names.made_with(settings.partitions), *topics]
    names += [name for name in created if name not in names]
    return TopicsReport(
        cluster_id=cluster["cluster_id"],
        created=[name for name in names if name in created],
        found=[name for name in names if name not in created],
    )


def _refuse(*faults: Fault) -> None:
    """Raise ``TopicsError`` for the first fault, if there is one."""
    for fault in faults:
        raise TopicsError(fault)


def _record(name: str) -> Topic:
    """Return a topic that stays empty, because its name alone records a fact."""
    return Topic(name=name, spare_partitions=True)


async def _look(
    admin: AIOKafkaAdminClient,
    settings: TopicSettings,
    *,
    after: Iterable[str] = (),
    restores_log: bool = False,
) -> Examination:
    """Examine the topics, and find out from the groups' commits which missing topics existed.

    ``after`` names topics that were just created, and that a broker may not know yet.
    """
    client, names = client_of(admin), settings.names

    async def ask() -> Examination | None:
        seen = await look_at_topics(client, names, settings.topics, settings.made)
        return None if seen is None or set(after) & set(seen.absent) else seen

    seen = await answer(ask, f"the topics of {settings.group_id} can't be described")
    gone = list(seen.missing)
    if restores_log:
        gone += [names.webhooks] if names.webhooks in {*seen.lost, *seen.replaced} else []
        seen = _before_restore(names, seen)
    lost = await _lost(admin, settings, gone, oldest=settings.version if restores_log else 1)
    if lost is None:
        return seen
    return msgspec.structs.replace(
        seen,
        missing=tuple(name for name in seen.missing if name not in lost.topics),
        lost={**seen.lost, **dict.fromkeys(lost.topics, lost.fault)},
    )


def _before_restore(names: TopicNames, seen: Examination) -> Examination:
    """Return the examination without the faults that the restore of the log will correct."""
    log = names.webhooks
    return msgspec.structs.replace(
        seen,
        missing=(*([log] if log in seen.lost else []), *seen.missing),
        unrecorded=tuple(name for name in seen.unrecorded if not names.recorded_logs([name])),
        lost={name: fault for name, fault in seen.lost.items() if name != log},
        replaced={name: fault for name, fault in seen.replaced.items() if name != log},
    )


class _Lost(NamedTuple):
    """Topics that existed, and the group whose commits prove that they existed."""

    topics: list[str]
    group: str

    @property
    def fault(self) -> Fault:
        return lost_fault(self.topics, f"The workers of {self.group} have folded records before")


async def _lost(
    admin: AIOKafkaAdminClient, settings: TopicSettings, gone: Sequence[str], oldest: int
) -> _Lost | None:
    """Return the topics of ``gone`` that existed; ``None`` if no such topic existed.

    A version's topics existed if the version's group has committed. The log existed if the group of
    any version from ``oldest`` on has committed. ``plexy.rejected`` does not count as lost for a
    new version: the version may create this topic again, and its workers write the log's rejections
    again.
    """
    shared = [name for name in gone if name == settings.names.webhooks]
    for version in range(settings.version, oldest - 1, -1):
        lost = list(gone) if version == settings.version else shared
        group = settings.of_version(version).group_id
        if lost and await _committed(admin, group):
            return _Lost(lost, group)
    return None


async def _create(admin: AIOKafkaAdminClient, settings: TopicSettings, topic: Topic) -> None:
    needed = topic.settings(settings.min_insync_replicas)
    response = await _ask_to_create(admin, settings, topic, needed)
    if any(code == InvalidConfigurationError.errno for _, code, *_ in response.topic_errors):
        # This broker is too old for the newer settings.
        known = [setting for setting in needed if not setting.newer]
        response = await _ask_to_create(admin, settings, topic, known)
    for name, code, *rest in response.topic_errors:
        # Another worker that starts at the same time may have created the topic.
        if code and code != TopicAlreadyExistsError.errno:
            reason = (rest[0] if rest else None) or for_code(code).__name__
            _refuse(
                Fault(
                    f"topic {name} can't be created: {reason}",
                    f"look at the brokers, and at LEDGER_REPLICATION_FACTOR="
                    f"{settings.replication_factor}",
                )
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

    async def ask() -> Any:
        try:
            return await admin.create_topics([new])
        except (KafkaError, TimeoutError):
            # If the controller is down, newer metadata names its successor.
            await client_of(admin).force_metadata_update()
            raise

    return await answer(ask, f"topic {topic.name} can't be created")


async def _committed(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Return whether the group has committed an offset.

    In a new cluster, the first such request makes Kafka create its own topic for commits; the call
    waits for that topic.
    """
    offsets = await answer(
        lambda: admin.list_consumer_group_offsets(group),
        f"no broker coordinates the group {group}",
    )
    return any(each.offset > 0 for each in offsets.values())


async def _begins(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> Mapping[str, Mapping[int, int]]:
    if not names:
        return {}
    return await answer(
        lambda: read_begins(admin, names), f"the first offsets of {', '.join(names)} can't be read"
    )


def _deletions(names: TopicNames, begins: Mapping[str, Mapping[int, int]]) -> Iterator[Fault]:
    for topic, found in begins.items():
        if topic == names.webhooks:
            remedy = (
                f"{WHO_DELETED}, then import the log into a new ledger from a backup, with "
                "`plexy-ledger import-log`"
            )
        elif topic == names.rejected:
            remedy = f"{WHO_DELETED}; the lost records were deliveries that ingress refused"
        else:
            remedy = f"{WHO_DELETED}, then make a new version with `plexy-ledger rebuild`"
        if fault := deletion_fault(topic, found, remedy):
            yield fault
