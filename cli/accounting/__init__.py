"""Exports the journal for accounting programs, and reconciles it with settlement files.

``formats``            writes the journal as Beancount, hledger and CSV
``journal``            reads the whole journal from Kafka
``export``             the command ``export``
``reconcile``          the command ``reconcile``
``settlement_values``  reads the amounts and time zones of a settlement file
"""

from enum import StrEnum


class JournalFormat(StrEnum):
    """A format of the exported journal. ``--help`` imports this module, so it must stay light."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"


class DecimalMark(StrEnum):
    """The mark before the decimals of an amount."""

    POINT = "."
    COMMA = ","
