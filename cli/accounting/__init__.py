"""Exports the journal for accounting programs, and reconciles it with settlement files.

``formats``    the journal as Beancount, hledger and CSV
``journal``    reads the whole journal from Kafka
``export``     the command ``export``
``reconcile``  the command ``reconcile``, with ``settlement_values`` of its file
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
