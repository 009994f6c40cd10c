"""Exports the journal for accounting programs, and reconciles it with settlement files.

``formats``            writes the journal as Beancount, hledger and CSV
``journal``            reads the whole journal from Kafka
``export``             the command ``export``
``reconcile``          the command ``reconcile``
``settlement_values``  reads the amounts of a settlement file, and the option ``--zone``
"""

from enum import StrEnum


class JournalFormat(StrEnum):
    """A format of the exported journal.

    ``--help`` imports this module, so importing the module must stay fast.
    """

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"


class DecimalMark(StrEnum):
    """The mark before the decimals of an amount."""

    POINT = "."
    COMMA = ","
