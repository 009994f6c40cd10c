"""The topics: their names, and the settings that the guarantees rest on.

Input: a prefix for the names (several ledgers may share a cluster), and a ledger's version. Output:
names and ``Topic`` values, from which ``runtime.kafka.topics`` creates and checks the topics.
Invariant: no two versions write to the same derived topic, because the older version could
overwrite the state of the newer version.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

# A record of this size has room for the largest body that ingress can be set to accept, and for the
# headers.
MAX_RECORD_BYTES: Final = 10 * 1024 * 1024

LIMIT: Final = "max.message.bytes"
"""The setting that bounds the size of a topic's batches, and thereby of its records."""

TOMBSTONES_KEPT_MS: Final = 24 * 3600 * 1000
"""How long a tombstone stays after Kafka first compacts it; the value is Kafka's own default."""

_MADE_WITH: Final = "plexy.partitions-"
_LOG_RECORD: Final = "plexy.log-"
_TOPICS_RECORD: Final = "ledger.topics-"
# Eight whole ids would make the name of a topic too long. The first 48 bits of each id, which are
# random, suffice.
_ID_BEGINNING: Final = 8
_FOREVER_MS: Final = -1
_WEEK_MS: Final = 7 * 24 * 3600 * 1000

TableName = Literal["seen", "payments", "orders"]
TABLES: Final[tuple[TableName, ...]] = ("seen", "payments", "orders")
"""The tables, each filled by one hop (a step of the fold), from the first hop to the last."""


class TopicSetting(msgspec.Struct, frozen=True, kw_only=True):
    """A topic setting that the guarantees rest on, with Kafka's own name and value.

    A topic is created with ``value``. ``accepts`` defines which values an existing topic may have:
    only the same value, any number that is not smaller, or any value. If a setting is ``newer``,
    brokers before Kafka 3.6 do not know it, so it is neither set nor checked on such brokers. If a
    setting with ``refuses_some`` has a wrong value, the broker refuses some records, but no record
    is lost.
    """

    name: str
    value: str
    why: str
    accepts: Literal["the same", "no less", "any"] = "the same"
    newer: bool = False
    refuses_some: bool = False

    def is_right(self, got: str | None) -> bool:
        """Return whether a topic may have this value.

        >>> setting = TopicSetting(name="x", value="5", accepts="no less", why="")
        >>> setting.is_right("6"), setting.is_right("4"), setting.is_right(None)
        (True, False, False)
        """
        if got is None:
            return self.newer
        if self.accepts == "no less":
            return int(got) >= int(self.value)
        return self.accepts == "any" or got == self.value


IN_SYNC: Final = "min.insync.replicas"
"""The setting whose value is ``LEDGER_MIN_INSYNC_REPLICAS`` when a ledger is created."""


def min_insync_replicas(count: int) -> TopicSetting:
    """Return the setting that depends on a ledger's number of brokers."""
    return TopicSetting(
        name=IN_SYNC,
        value=str(count),
        accepts="no less",
        why="every acknowledged record has that many replicas",
    )


_EVERY_TOPIC: Final = (
    TopicSetting(
        name="retention.bytes", value="-1", why="the records are kept, however large the topic is"
    ),
    TopicSetting(
        name=LIMIT,
        value=str(MAX_RECORD_BYTES),
        accepts="no less",
        refuses_some=True,
        why="a record has room for the largest body that ingress may accept, and for its headers",
    ),
    TopicSetting(
        name="message.timestamp.type",
        value="CreateTime",
        why="a record keeps the time with which it was written: this time decides when an event id "
        "is forgotten, and a restore from a backup keeps this time",
    ),
    TopicSetting(
        name="message.timestamp.before.max.ms",
        value=str(2**63 - 1),
        accepts="no less",
        newer=True,
        why="a backup of any age can be restored",
    ),
    TopicSetting(
        name="message.timestamp.after.max.ms",
        value=str(3600 * 1000),
        accepts="no less",
        newer=True,
        why="a broker with a slow clock accepts the records; the value is Kafka's own default",
    ),
    TopicSetting(
        name="compression.type",
        value="producer",
        accepts="any",
        why="the programs read all of Kafka's codecs",
    ),
    TopicSetting(
        name="unclean.leader.election.enable",
        value="false",
        why="a broker that lacks acknowledged records never becomes a leader",
    ),
)


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """The required state of a topic: its name, clean-up policy and retention (``-1``: forever).

    ``spare_partitions`` means that partitions beyond the ledger's number do no harm.
    """

    name: str
    cleanup_policy: Literal["delete", "compact"] = "delete"
    retention_ms: int = _FOREVER_MS
    spare_partitions: bool = False

    @property
    def keeps_its_start(self) -> bool:
        """Whether the topic begins at offset 0 forever; compaction does not move the beginning."""
        return self.retention_ms == _FOREVER_MS

    def settings(self, in_sync: int) -> tuple[TopicSetting, ...]:
        """Return every setting that the topic needs in a ledger with this many in-sync replicas.

        >>> [each.value for each in Topic(name="t").settings(2) if each.name == IN_SYNC]
        ['2']
        """
        return (*self._kept(), *_EVERY_TOPIC, min_insync_replicas(in_sync))

    def config(self, in_sync: int = 1) -> dict[str, str]:
        """Return the configuration to create the topic with, in Kafka's own names."""
        return {setting.name: setting.value for setting in self.settings(in_sync)}

    def _kept(self) -> Iterator[TopicSetting]:
        is_compacted = self.cleanup_policy == "compact"
        yield TopicSetting(
            name="cleanup.policy",
            value=self.cleanup_policy,
            why="the last record of each key stays" if is_compacted else "every record counts",
        )
        yield TopicSetting(
            name="retention.ms",
            value=str(self.retention_ms),
            why="the records are kept as long as somebody may need them",
        )
        if is_compacted:
            yield TopicSetting(
                name="delete.retention.ms",
                value=str(TOMBSTONES_KEPT_MS),
                accepts="no less",
                why="a table that was offline for a day still sees the deletions",
            )


class TopicNames(msgspec.Struct, frozen=True):
    """The name of every topic, by its purpose.

    All versions of a ledger share the log of record and ``plexy.rejected``; each version has its
    own topics for everything that is derived from the log.

    >>> TopicNames().webhooks, TopicNames("shop2.").orders
    ('plexy.webhooks', 'shop2.ledger.orders')
    >>> TopicNames(version=2).webhooks, TopicNames(version=2).orders
    ('plexy.webhooks', 'ledger.orders.v2')
    """

    prefix: str = ""
    version: int = 1

    @property
    def webhooks(self) -> str:
        """The log of record: the raw bodies, keyed by event id."""
        return f"{self.prefix}plexy.webhooks"

    @property
    def rejected(self) -> str:
        """Records and deliveries that do not count, with the reason.

        All versions share this topic, because the log does not have the deliveries that ingress
        refused. A version that folds the log from scratch writes its rejections again, with the
        same keys and bytes.
        """
        return f"{self.prefix}plexy.rejected"

    def made_with(self, partitions: int | str) -> str:
        """Return the name of the topic whose name records the number of partitions.

        The topic has no records. An operator can raise a topic's number of partitions, but can't
        change its name.

        >>> TopicNames("shop2.").made_with(4)
        'shop2.plexy.partitions-4'
        """
        return f"{self.prefix}{_MADE_WITH}{partitions}"

    def recorded_partitions(self, existing: Iterable[str]) -> list[int]:
        """Return the partition counts that existing topics record; a sound ledger has one count.

        >>> TopicNames().recorded_partitions(["plexy.webhooks", "plexy.partitions-4"])
        [4]
        """
        start = f"{self.prefix}{_MADE_WITH}"
        ends = (name.removeprefix(start) for name in existing if name.startswith(start))
        return sorted(int(end) for end in ends if end.isdecimal())

    def log_record(self, topic_id: str) -> str:
        """Return the name of the topic whose name records the id of the log of record.

        The topic has no records. A log that is deleted and created again gets a different id.

        >>> TopicNames("shop2.").log_record("o-DHdbmATByfcW2Z1J0-Qg")
        'shop2.plexy.log-o-DHdbmATByfcW2Z1J0-Qg'
        """
        return f"{self.prefix}{_LOG_RECORD}{topic_id}"

    def recorded_logs(self, existing: Iterable[str]) -> list[str]:
        """Return the log ids that topic names record: the ids of the log and of deleted logs.

        >>> TopicNames().recorded_logs(["plexy.log-abc", "plexy.webhooks"])
        ['abc']
        """
        start = f"{self.prefix}{_LOG_RECORD}"
        return sorted(name.removeprefix(start) for name in existing if name.startswith(start))

    def topics_record(self, ids: Iterable[str]) -> str:
        """Return the name of the topic whose name records the ids of a version's topics.

        The topic has no records. The name contains the beginnings of the ids of all topics except
        the log, in the sequence of ``all_topics``.

        >>> TopicNames(version=2).topics_record(["o-DHdbmATByfcW2Z1J0-Qg"])
        'ledger.topics-o-DHdbmA.v2'
        """
        return self._derived(_TOPICS_RECORD + "".join(map(beginning_of, ids)))

    def recorded_topics(self, existing: Iterable[str]) -> list[list[str]]:
        """Return the beginnings of ids that existing topics record for this version.

        >>> TopicNames().recorded_topics(["ledger.topics-o-DHdbmAYb7HAPS2", "ledger.events"])
        [['o-DHdbmA', 'Yb7HAPS2']]
        """
        start, end = self._derived(_TOPICS_RECORD + "…").split("…")
        ids = [
            name.removeprefix(start).removesuffix(end)
            for name in sorted(existing)
            if name.startswith(start) and name.endswith(end)
        ]
        return [re.findall(f".{{{_ID_BEGINNING}}}", each) for each in ids if "." not in each]

    @property
    def events(self) -> str:
        """Each event once, keyed by payment id."""
        return self._derived("ledger.events")

    @property
    def payments(self) -> str:
        """Payment snapshots, keyed by order id."""
        return self._derived("ledger.payments")

    @property
    def entries(self) -> str:
        """Balanced journal entries, keyed by entry id."""
        return self._derived("ledger.entries")

    @property
    def orders(self) -> str:
        """Order documents, keyed by order id."""
        return self._derived("ledger.orders")

    @property
    def shared(self) -> tuple[str, str]:
        """The topics that all versions of the ledger share."""
        return (self.webhooks, self.rejected)

    @property
    def hops(self) -> tuple[str, str, str]:
        """The topics that the workers' hops read, from the first hop to the last."""
        return (self.webhooks, self.events, self.payments)

    def source_of(self, table: TableName) -> str:
        """Return the topic that a table is folded from."""
        return self.hops[TABLES.index(table)]

    def fed_by(self, table: TableName) -> str | None:
        """Return the topic that a table's hop writes for the next hop, if there is a next hop."""
        return {"seen": self.events, "payments": self.payments}.get(table)

    def _derived(self, name: str) -> str:
        return f"{self.prefix}{name}" + (f".v{self.version}" if self.version > 1 else "")


def beginning_of(topic_id: str) -> str:
    """Return the beginning of a topic's id, as ``TopicNames.topics_record`` contains it."""
    return topic_id[:_ID_BEGINNING]


def changelog_name(group_id: str, table: str) -> str:
    """Return the changelog topic of a table, according to Faust's rule."""
    return f"{group_id}-{table}-changelog"


def log_topics(names: TopicNames) -> tuple[Topic, Topic]:
    """Return the topics that ingress appends to, and that all versions of a ledger share.

    Extra partitions of ``plexy.rejected`` do no harm: no program writes to them, and no program
    looks up a key there.
    """
    return (Topic(name=names.webhooks), Topic(name=names.rejected, spare_partitions=True))


def all_topics(names: TopicNames, group_id: str) -> list[Topic]:
    """Return every topic that must exist before a worker starts.

    ``ledger.events`` and ``ledger.payments`` only carry data from one agent to the next agent. They
    keep the data for a week, so workers may be down for up to a week. A rebuild does not need this
    data, because it starts from the log.
    """
    return [
        *log_topics(names),
        Topic(name=names.events, retention_ms=_WEEK_MS),
        Topic(name=names.payments, retention_ms=_WEEK_MS),
        Topic(name=names.entries),
        Topic(name=names.orders, cleanup_policy="compact"),
        *(Topic(name=changelog_name(group_id, t), cleanup_policy="compact") for t in TABLES),
    ]
