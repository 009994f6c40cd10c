"""The topics: their names and the settings that the guarantees rest on.

In: a prefix for the names (several ledgers may share a cluster), and a ledger's version. Out: names
and ``Topic`` values. Never: a connection; ``runtime.topics`` creates and checks what is described
here. Never two versions that write to one derived topic: the older one's state would come last.
"""

from typing import Final, Literal

import msgspec

# Room for a body of the largest size that ingress may be set to accept, with its headers.
MAX_RECORD_BYTES: Final = 10 * 1024 * 1024

TOMBSTONES_KEPT_MS: Final = 24 * 3600 * 1000
"""How long a compacted topic keeps a tombstone after its first cleaning; Kafka's own default."""

_FOR_EVER_MS: Final = -1
_WEEK_MS: Final = 7 * 24 * 3600 * 1000

TableName = Literal["seen", "payments", "orders"]
TABLES: Final[tuple[TableName, ...]] = ("seen", "payments", "orders")


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic as it must be: its name, clean-up policy and retention (``-1`` is for ever)."""

    name: str
    cleanup_policy: Literal["delete", "compact"] = "delete"
    retention_ms: int = _FOR_EVER_MS

    @property
    def config(self) -> dict[str, str]:
        """The topic's configuration in Kafka's own names."""
        config = {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": str(MAX_RECORD_BYTES),
        }
        if self.cleanup_policy == "compact":
            config["delete.retention.ms"] = str(TOMBSTONES_KEPT_MS)
        return config


class TopicNames(msgspec.Struct, frozen=True):
    """The name of every topic, by what it is for.

    Versions of a ledger share the log of record, and what is kept beside it; all that follows from
    the log is each version's own.

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
        """What was kept but is not counted, with the reason.

        Shared: it has what ingress refused, and no log to make it anew from; a version that folds
        the log anew writes the rejections of the fold again, the same bytes under the same keys.
        """
        return f"{self.prefix}plexy.rejected"

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
        """The topics that every version of the ledger has."""
        return (self.webhooks, self.rejected)

    def source_of(self, table: TableName) -> str:
        """Return the topic that a table is folded from."""
        sources = {"seen": self.webhooks, "payments": self.events, "orders": self.payments}
        return sources[table]

    def _derived(self, name: str) -> str:
        return f"{self.prefix}{name}" + (f".v{self.version}" if self.version > 1 else "")


def changelog_name(group_id: str, table: str) -> str:
    """Return the changelog topic of a table, by Faust's rule."""
    return f"{group_id}-{table}-changelog"


def all_topics(names: TopicNames, group_id: str) -> list[Topic]:
    """Return every topic that must exist before a worker starts.

    ``ledger.events`` and ``ledger.payments`` only carry data from one agent to the next: a week is
    as long as the workers may be down; a rebuild starts from the log of record.
    """
    return [
        Topic(name=names.webhooks),
        Topic(name=names.rejected),
        Topic(name=names.events, retention_ms=_WEEK_MS),
        Topic(name=names.payments, retention_ms=_WEEK_MS),
        Topic(name=names.entries),
        Topic(name=names.orders, cleanup_policy="compact"),
        *(Topic(name=changelog_name(group_id, t), cleanup_policy="compact") for t in TABLES),
    ]
