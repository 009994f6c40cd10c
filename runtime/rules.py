"""Defines the settings that decide how the log of record is read.

All programs that fold the log must have the same values. After a change, fold the log from scratch:
until then, `plexy-ledger verify` reports that the ledger differs from its log.
"""

from typing import Annotated, Final, Literal

from ledger.deduplication import DAY_MS, FORGET_AFTER_DAYS
from ledger.events import FieldNames
from runtime.kafka.topics import TopicSettings
from runtime.settings import setting

DEFAULT_NAMES: Final = FieldNames()


OrderFields = Annotated[
    tuple[str, ...],
    setting("names of the order's reference in `data` and `data.metadata`", min_length=1),
]
PaymentFields = Annotated[
    tuple[str, ...],
    setting("names of the payment's reference in a refund's `data`", min_length=1),
]
# Plexy may retry for 75 hours: a shorter time would forget events that may still be redelivered.
ForgetAfterDays = Annotated[
    int,
    setting(
        "days after which an event id is forgotten, longer than Plexy retries (75 hours); "
        "after a change the log has to be folded from scratch",
        ge=4,
        le=36_500,
    ),
]


VerifySignatures = Annotated[
    Literal["ingress", "worker"],
    setting(
        "who checks signatures: `ingress` alone, or each `worker` again, which sets aside records "
        "without a good one; after a change the log has to be folded from scratch"
    ),
]


class RuleSettings(TopicSettings, frozen=True, kw_only=True):
    """The fields of an event's references, how long its id is kept, and who checks signatures."""

    order_fields: OrderFields = DEFAULT_NAMES.order
    payment_fields: PaymentFields = DEFAULT_NAMES.payment
    forget_after_days: ForgetAfterDays = FORGET_AFTER_DAYS
    verify_signatures: VerifySignatures = "ingress"

    @property
    def field_names(self) -> FieldNames:
        """The fields in which references are looked up."""
        return FieldNames(order=self.order_fields, payment=self.payment_fields)

    @property
    def forget_after_ms(self) -> int:
        """How long an event id is remembered, in milliseconds of the log's time."""
        return self.forget_after_days * DAY_MS
