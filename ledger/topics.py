"""The topics: their names and the settings that the guarantees rest on.

In: a prefix for the names (several ledgers may share a cluster). Out: names and ``Topic`` values.
Never: a connection; ``runtime.topics`` creates and checks what is described here.
"""

from typing import Final, Literal

import msgspec

# Room for a body of the largest size that ingress may be set to accept, with its headers.
MAX_RECORD_BYTES: Final = 10 * 1024 * 1024

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
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": str(MAX_RECORD_BYTES),
        }


class TopicNames(msgspec.Struct, frozen=True):
    """The name of every topic, by what it is for.

    >>> TopicNames().webhooks, TopicNames("shop2.").orders
    ('plexy.webhooks', 'shop2.ledger.orders')
    """

    prefix: str = ""

    @property
    def webhooks(self) -> str:
        """The log of record: the raw bodies, keyed by event id."""
        return f"{self.prefix}plexy.webhooks"

    @property
    def rejected(self) -> str:
        """What was kept but is not counted, with the reason."""
        return f"{self.prefix}plexy.rejected"

    @property
    def events(self) -> str:
        """Each event once, keyed by payment id."""
        return f"{self.prefix}ledger.events"

    @property
    def payments(self) -> str:
        """Payment snapshots, keyed by order id."""
        return f"{self.prefix}ledger.payments"

    @property
    def entries(self) -> str:
        """Balanced journal entries, keyed by entry id."""
        return f"{self.prefix}ledger.entries"

    @property
    def orders(self) -> str:
        """Order documents, keyed by order id."""
        return f"{self.prefix}ledger.orders"


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
