"""Explains what each kind of difference means, and what to do about it.

The commands that find differences print the remedy for each kind, and the table in the docs is made
from this module.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from ledger.verification.differences import DifferenceKind as Kind


class Remedy(msgspec.Struct, frozen=True):
    """The meaning of a kind of difference, and the action that it asks for, as sentences."""

    meaning: str
    action: str


_LOST_PAYMENT_OR_ORDER: Final = Remedy(
    "The table lacks a payment or an order that is in the log.",
    "Check the changelog's `cleanup.policy` and ACLs, then rebuild.",
)
_WRONG_PAYMENT_OR_ORDER: Final = Remedy(
    "A value does not follow from its facts, or lacks folded facts.",
    "Check the changelog's `cleanup.policy` and ACLs, then rebuild. Until then, trust"
    " `verify --order` and not the view.",
)
_FOREIGN_PAYMENT_OR_ORDER: Final = Remedy(
    "The table has a value that does not follow from the log.",
    "Look for `log_incomplete`. Check the changelog's ACLs, then rebuild.",
)
_SEEN: Final = Remedy(
    "`dedupe` lacks a folded event id, has other content for the id, or has recorded the wrong"
    " progress.",
    "Check that all programs have the same `LEDGER_FORGET_AFTER_DAYS`, then rebuild.",
)
_DOCUMENT: Final = Remedy(
    "The latest document in `ledger.orders` does not match the order.",
    "Inform the topic's consumers. The order's next event, or a rebuild, writes a new document.",
)
_FOREIGN_ENTRY: Final = "Remove the entry from the books. Check the ACLs of `ledger.entries`."

REMEDIES: Final[Mapping[Kind, Remedy]] = MappingProxyType(
    {
        Kind.SIGNATURE_INVALID: Remedy(
            "A record of the log has no good signature of its body.",
            "If all such records are from one period, add the secret of that period. Otherwise"
            " check who may write to `plexy.webhooks` (Kafka's ACLs), and compare the event with"
            " Plexy's dashboard.",
        ),
        Kind.RECORD_MISPLACED: Remedy(
            "A record is not in its key's partition, so deduplication can't see the record.",
            "Check Kafka's ACLs: ingress never misplaces a record.",
        ),
        Kind.LOG_INCOMPLETE: Remedy(
            "Offsets of the log are gone, or the log ends too early.",
            "Run `plexy-ledger topics --check`, and restore the log from a backup.",
        ),
        Kind.SEEN_MISSING: _SEEN,
        Kind.SEEN_DIFFERS: _SEEN,
        Kind.SEEN_UNEXPLAINED: Remedy(
            "`dedupe` has recorded an event id that the log does not have. If the event is"
            " delivered, `dedupe` drops the delivery.",
            "Look for `log_incomplete`, then rebuild.",
        ),
        Kind.PAYMENT_MISSING: _LOST_PAYMENT_OR_ORDER,
        Kind.ORDER_MISSING: _LOST_PAYMENT_OR_ORDER,
        Kind.PAYMENT_DIFFERS: _WRONG_PAYMENT_OR_ORDER,
        Kind.ORDER_DIFFERS: _WRONG_PAYMENT_OR_ORDER,
        Kind.PAYMENT_UNEXPLAINED: _FOREIGN_PAYMENT_OR_ORDER,
        Kind.ORDER_UNEXPLAINED: _FOREIGN_PAYMENT_OR_ORDER,
        Kind.VALUE_MISPLACED: Remedy(
            "A value is in the wrong partition for its key.",
            "Check the changelog's ACLs, then rebuild.",
        ),
        Kind.DOCUMENT_MISSING: _DOCUMENT,
        Kind.DOCUMENT_DIFFERS: _DOCUMENT,
        Kind.DOCUMENT_UNEXPLAINED: _DOCUMENT,
        Kind.ENTRY_MISSING: Remedy(
            "A success or refund has no standing entry (posted, and not reversed).",
            "Check that `ledger.entries` has `retention.ms=-1`, then rebuild.",
        ),
        Kind.ENTRY_DIFFERS: Remedy(
            "An entry differs from the entry that its event posts, two entries for the same money"
            " stand, or an entry that was never posted was reversed.",
            _FOREIGN_ENTRY,
        ),
        Kind.ENTRY_UNEXPLAINED: Remedy(
            "An entry names an event that the log lacks, or an event that posts nothing.",
            _FOREIGN_ENTRY,
        ),
        Kind.BALANCE_DIFFERS: Remedy(
            "The entries of an account do not sum to the log's balance.",
            "Look at the entries in the same report.",
        ),
        Kind.REPLICA_DIFFERS: Remedy(
            "A worker's disk has rows that differ from its changelog at the same offset.",
            "If values also differ from the log of record, rebuild. Otherwise stop the worker,"
            " delete the folder that the line names, and start the worker. Keep the worker's log"
            " output: this is a bug, or somebody wrote to the disk.",
        ),
        Kind.REPLICA_DAMAGED: Remedy(
            "A worker found its disk damaged within the last ten minutes, and has restored the"
            " partition.",
            "Check the disk.",
        ),
        Kind.VERSIONS_DIFFER: Remedy(
            "In a rebuild, the versions disagree about a payment, order or entry.",
            "Find out which version also differs from the log.",
        ),
    }
)
