"""The rules that say what an event means: the kind of fact that each event type states.

A rule set is data. The default rule set, ``SEED``, folds only the three types that Plexy publishes.
Input: a rule set, and the type and the data of an envelope. Output: the kind of fact,
``INFORMATIONAL`` for a known type that states no fact, or ``None`` for an unknown type. Invariant:
rule sets that differ only in their names have equal digests.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import msgspec


class Kind(StrEnum):
    """What an event states about its payment; ``INFORMATIONAL`` states nothing to count."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUNDED = "refunded"
    AUTHORISED = "authorised"
    CAPTURED = "captured"
    VOIDED = "voided"
    REFUND_REVERSED = "refund_reversed"
    DISPUTED = "disputed"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    INFORMATIONAL = "informational"


# Reading a name of this module is several times as fast as reading an attribute of an enum.
SUCCEEDED: Final = Kind.SUCCEEDED
AUTHORISED: Final = Kind.AUTHORISED
FAILED: Final = Kind.FAILED
REFUNDED: Final = Kind.REFUNDED
CAPTURED: Final = Kind.CAPTURED
REFUND_REVERSED: Final = Kind.REFUND_REVERSED
INFORMATIONAL: Final = Kind.INFORMATIONAL

MOVES_ITS_AMOUNT: Final = frozenset({Kind.SUCCEEDED, Kind.REFUNDED, Kind.CAPTURED})
"""The kinds whose facts always have an amount."""

ANY_STATUS: Final = "*"

ByStatus = dict[str, Kind]
"""The kind of fact for each value of ``data.status``.

The values are compared in the form that ``word_of`` returns. ``ANY_STATUS`` stands for every other
value.
"""

_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """The kind of fact that each event type states.

    If ``follows_payments`` is true, an event of any kind may name its payment in the payment
    fields, and a success that names another payment is a capture of that payment. If
    ``follows_payments`` is false, only an event about a refund may name its payment.

    ``captured_fields`` are the fields of ``data`` that hold the amount of a capture or a success.
    If an event has none of these fields, the field ``amount`` holds its amount. If
    ``captured_fields`` is not empty, a success whose field ``captured`` is false is an
    authorisation.
    """

    name: str
    types: Mapping[str, Kind | ByStatus]
    follows_payments: bool = False
    captured_fields: tuple[str, ...] = ()

    def kind_of(self, event_type: str, data: Mapping[str, Any]) -> Kind | None:
        """Return what an event states; ``None`` if the rules do not know its type or status.

        >>> SEED.kind_of("payment.failed", {}), SEED.kind_of("payment.captured", {})
        (<Kind.FAILED: 'failed'>, None)
        >>> LIFECYCLE.kind_of("dispute.closed", {"status": "lost"})
        <Kind.DISPUTE_LOST: 'dispute_lost'>
        """
        kind = self.types.get(event_type)
        if type(kind) is not dict:
            return kind  # type: ignore[return-value] # it is no dict here
        status = data.get("status") if isinstance(data, dict) else None
        if not isinstance(status, str):
            return kind.get(ANY_STATUS)
        if status not in kind:
            status = next((each for each in kind if word_of(each) == word_of(status)), ANY_STATUS)
        return kind.get(status)

    @property
    def digest(self) -> str:
        """A short digest of the rules without their name."""
        rules = (self.types, self.follows_payments, self.captured_fields)
        return blake2b(_CANONICAL.encode(rules), digest_size=8).hexdigest()


def word_of(status: str) -> str:
    """Return a status in the form in which statuses are compared.

    >>> word_of("Requires-Action"), word_of(" LOST")
    ('requires_action', 'lost')
    """
    return status.strip().lower().replace(" ", "_").replace("-", "_")


def _types(**kinds: str) -> dict[str, Kind | ByStatus]:
    return {**_by_status(**kinds)}


def _by_status(**kinds: str) -> ByStatus:
    return {name: Kind(kind) for kind, names in kinds.items() for name in names.split()}


_OUTCOMES: Final[ByStatus] = {
    "won": Kind.DISPUTE_WON,
    "lost": Kind.DISPUTE_LOST,
    # With this status, an inquiry ended before it became a dispute. The inquiry's opening may have
    # moved the amount, so the inquiry counts as won.
    "warning_closed": Kind.DISPUTE_WON,
}
# Any other status may be final, so an event with such a status is shown like an event of an unknown
# type.
_REFUND_STATES: Final = _by_status(
    refunded="succeeded processed completed complete success successful refunded",
    refund_reversed=(
        "failed failure canceled cancelled declined denied error expired rejected reversed voided"
    ),
    informational=(
        "created in_progress initiated new open pending processing queued "
        "requested requires_action submitted"
    ),
)
_INFORMATIONAL: Final = (
    "payment.created payment.pending payment.processing payment.requires_action payment.updated"
)

SEED: Final = RuleSet(
    name="seed",
    types=_types(
        succeeded="payment.succeeded",
        failed="payment.failed",
        refunded="refund.succeeded",
        informational=_INFORMATIONAL,
    ),
)

# The names are those that Stripe, Razorpay, Checkout.com, Mollie, Square and Braintree publish,
# most of them in Plexy's spelling with a dot. `charge.refunded` is left out on purpose: its amount
# is the charge's, not the refund's.
LIFECYCLE: Final = RuleSet(
    name="lifecycle",
    types=_types(
        succeeded=(
            "payment.succeeded payment.completed payment.paid payment_intent.succeeded "
            "charge.succeeded"
        ),
        failed=(
            "payment.failed payment.declined payment.rejected payment.expired "
            "payment_intent.payment_failed charge.failed payment_declined"
        ),
        refunded="refund.succeeded refund.processed refund.completed",
        authorised=(
            "payment.authorized payment.authorised payment.approved payment_approved "
            "payment_intent.amount_capturable_updated authorization.created "
            "authorization.succeeded"
        ),
        captured=(
            "payment.captured payment_captured charge.captured capture.succeeded capture.completed"
        ),
        voided=(
            "payment.voided payment.canceled payment.cancelled payment_voided payment_canceled "
            "payment_intent.canceled charge.expired authorization.voided authorization.expired"
        ),
        refund_reversed=(
            "refund.failed refund.reversed refund.canceled refund.cancelled charge.refund.failed"
        ),
        disputed=(
            "dispute.created dispute.opened charge.dispute.created payment.disputed "
            "payment.dispute.created payment.chargeback chargeback.created chargeback.opened "
            "chargeback.received"
        ),
        dispute_won=(
            "dispute.won charge.dispute.won payment.dispute.won chargeback.won "
            "chargeback.reversed payment.chargeback_reversed"
        ),
        dispute_lost=(
            "dispute.lost charge.dispute.lost payment.dispute.lost chargeback.lost "
            "dispute.accepted payment.charged_back"
        ),
        informational=(
            f"{_INFORMATIONAL} payment_intent.created payment_intent.processing "
            "payment_intent.requires_action charge.pending charge.updated refund.pending "
            "refund.processing dispute.evidence_required dispute.under_review "
            "charge.dispute.funds_withdrawn charge.dispute.funds_reinstated "
            "payment.dispute.under_review payment.dispute.action_required payment_pending"
        ),
    )
    | {
        "refund.created": _REFUND_STATES,
        "refund.updated": _REFUND_STATES,
        "charge.refund.updated": _REFUND_STATES,
        "dispute.updated": _OUTCOMES | {ANY_STATUS: Kind.INFORMATIONAL},
        "charge.dispute.updated": _OUTCOMES | {ANY_STATUS: Kind.INFORMATIONAL},
        "dispute.closed": _OUTCOMES,
        "charge.dispute.closed": _OUTCOMES,
        "payment.dispute.closed": _OUTCOMES,
    },
    follows_payments=True,
    captured_fields=("amount_captured", "amountCaptured", "capturedAmount", "amount_received"),
)

# A transaction is captured only once, and later notifications about it repeat that capture. So
# `charged` is a success: only the earliest success counts, and a different amount is an anomaly.
PAY: Final = RuleSet(
    name="pay",
    types=_types(
        succeeded="transaction.charged",
        failed="transaction.failed transaction.rejected",
        refunded="transaction.refunded",
        authorised="transaction.authorized",
        voided="transaction.cancelled",
        informational="transaction.created",
    ),
)

BUILT_IN: Final[Mapping[str, RuleSet]] = {each.name: each for each in (SEED, LIFECYCLE, PAY)}
