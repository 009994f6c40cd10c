"""Offers the values of some options when the user presses Tab.

typer shows only the values that begin with the typed text. Because the user waits, no function
connects to Kafka, reads a file or imports a slow module. For commands, for the names of options,
and for options whose type is an enumeration, typer itself offers the values. For other arguments,
the shell completes file names.
"""

from typing import Final

BROKERS: Final = ("1", "3")


def brokers() -> list[str]:
    """Return the possible broker counts of an embedded Kafka."""
    return list(BROKERS)


def event_types() -> list[str]:
    """Return the event types that workers fold; ``send`` also accepts any other type."""
    from ledger.events import FOLDED_TYPES

    return sorted(FOLDED_TYPES)


def currencies() -> list[str]:
    """Return the ISO 4217 codes of the known currencies."""
    from ledger.currencies import MINOR_UNIT_DIGITS

    return sorted(MINOR_UNIT_DIGITS)
