"""The statuses that contradict the type of their event.

Input: the kind of fact that an event's type states, and the text of the event's ``status``. Output:
whether the two contradict each other. The type, not the status, decides how an event counts. An
unknown status contradicts nothing.
"""

from functools import lru_cache
from typing import Final

from ledger.lifecycle import Kind, word_of

_SUCCESS: Final = frozenset({
    "approved", "captured", "charged", "complete", "completed", "paid", "settled", "success",
    "successful", "succeeded",
})  # fmt: skip
_FAILURE: Final = frozenset({
    "canceled", "cancelled", "declined", "denied", "error", "expired", "failed", "failure",
    "rejected", "voided",
})  # fmt: skip
_OPEN: Final = frozenset({
    "authorised", "authorized", "created", "incomplete", "initiated", "in_progress", "new",
    "pending", "processing", "requires_action", "requires_capture", "requires_confirmation",
    "requires_payment_method", "unpaid",
})  # fmt: skip
# A failed attempt may leave its payment open for another attempt, so most open statuses do not
# contradict a failure.
_CONTRADICTING: Final[dict[Kind, frozenset[str]]] = {
    Kind.SUCCEEDED: _FAILURE | _OPEN,
    Kind.CAPTURED: _FAILURE | _OPEN,
    Kind.FAILED: _SUCCESS | {"pending", "processing"},
    Kind.REFUNDED: _FAILURE | _OPEN,
    Kind.AUTHORISED: _FAILURE,
    Kind.VOIDED: _SUCCESS,
    Kind.REFUND_REVERSED: _SUCCESS | {"processed", "refunded"},
    Kind.DISPUTED: frozenset({"lost", "won"}),
    Kind.DISPUTE_WON: frozenset({"lost"}),
    Kind.DISPUTE_LOST: frozenset({"won"}),
}


@lru_cache(maxsize=256)
def contradicts(kind: Kind, status: str) -> bool:
    """Return whether a status contradicts the type of its event.

    >>> contradicts(Kind.SUCCEEDED, "Pending"), contradicts(Kind.SUCCEEDED, "refunded")
    (True, False)
    """
    against = _CONTRADICTING.get(kind)
    return against is not None and word_of(status) in against
