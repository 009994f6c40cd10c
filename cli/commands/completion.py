"""Values that a shell offers on Tab, where an option takes a word without a closed list of them.

Out: values; typer keeps those that begin as what was typed. Never: a connection, a file or a slow
import: somebody waits with a finger on the key. Names of commands and options, and the values of an
enumeration, are typer's own work; where nothing is offered, shells complete the names of files.
"""

from typing import Final

BROKERS: Final = ("1", "3")


def brokers() -> list[str]:
    """Return how many brokers an embedded Kafka may have."""
    return list(BROKERS)


def event_types() -> list[str]:
    """Return the types of events that are folded; any other may be sent too."""
    from ledger.events import FOLDED_TYPES

    return sorted(FOLDED_TYPES)


def currencies() -> list[str]:
    """Return the ISO 4217 codes that an amount may be in."""
    from ledger.money import MINOR_UNIT_DIGITS

    return sorted(MINOR_UNIT_DIGITS)
