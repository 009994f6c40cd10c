"""Offers values on Tab for options that are not enumerations.

typer keeps the values that begin with the typed text. Because the user waits, no function connects
to Kafka, reads a file or imports a slow module. typer itself offers commands, options and
enumerations; for other arguments, shells complete file names.
"""

from typing import Final

BROKERS: Final = ("1", "3")


def brokers() -> list[str]:
    """Return the possible broker counts of an embedded Kafka."""
    return list(BROKERS)


def event_types() -> list[str]:
    """Return the event types that workers fold; ``send`` accepts other types too."""
    from ledger.events import FOLDED_TYPES

    return sorted(FOLDED_TYPES)


def currencies() -> list[str]:
    """Return the ISO 4217 codes of the known currencies."""
    from ledger.currencies import MINOR_UNIT_DIGITS

    return sorted(MINOR_UNIT_DIGITS)
