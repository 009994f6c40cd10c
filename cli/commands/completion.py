"""The values that a shell offers on Tab for options whose values are not an enumeration.

Output: values, of which typer keeps those that begin with the typed text. Invariant: no connection,
no file and no slow import, because the user waits. typer itself offers commands, options and
enumerations. Where nothing is offered, shells complete the names of files.
"""

from typing import Final

BROKERS: Final = ("1", "3")


def brokers() -> list[str]:
    """Return the numbers of brokers that an embedded Kafka may have."""
    return list(BROKERS)


def event_types() -> list[str]:
    """Return the types of events that are folded; other types may be sent too."""
    from ledger.events import FOLDED_TYPES

    return sorted(FOLDED_TYPES)


def currencies() -> list[str]:
    """Return the ISO 4217 codes that an amount may be in."""
    from ledger.money import MINOR_UNIT_DIGITS

    return sorted(MINOR_UNIT_DIGITS)
