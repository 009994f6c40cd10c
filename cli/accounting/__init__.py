"""The journal for accountants: for their own programs, and compared with settlements.

``formats``    the journal as Beancount, hledger and CSV have it
``journal``    reads the journal from Kafka, whole
``export``     the command ``export``
``reconcile``  the command ``reconcile``
"""

from enum import StrEnum


class Format(StrEnum):
    """What the journal can be written as. Here, since the command's help names them at once."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"
