"""Reads the time of an event, and checks whether the time is plausible.

Input: the value of ``created``, and the time at which the delivery arrived. Output: Unix seconds,
or ``None`` for a value that has no single meaning; and whether the time is plausible. Invariant: no
result depends on a clock.
"""

import re
from calendar import monthrange, timegm
from math import floor
from operator import gt
from typing import Final

_DAY_S: Final = 24 * 3600
_YEAR_2000_S: Final = 946_684_800
# As a number of seconds, this value is a time in the year 5138. As a number of milliseconds, it is
# a time in 1973.
LEAST_MILLISECONDS: Final = 10**11
# A fraction of a second is dropped. By default, Python refuses to convert a longer text to an
# integer.
_DIGITS: Final = re.compile(r"([0-9]{1,4300})(?:\.[0-9]+)?")
# A time must have a zone, because without a zone it has many meanings.
_ISO_8601: Final = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})[Tt ]([0-9]{2}):?([0-9]{2})(?::?([0-9]{2})(?:[.,][0-9]+)?)?"
    r"(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)"
)
# The largest month, day, hour, minute and second; second 60 is a leap second.
_MOST: Final = (12, 31, 23, 59, 60)


def seconds_of(created: object) -> int | None:
    """Return a time in Unix seconds, rounded down; ``None`` if the value can't be read.

    >>> seconds_of(1795900000.7), seconds_of("1795900000"), seconds_of(1795900000123)
    (1795900000, 1795900000, 1795900000)
    >>> seconds_of("2026-11-29T10:00:00.5+05:00"), seconds_of("2026-11-29T10:00:00")
    (1795928400, None)
    """
    # Nearly all values are integers, so this type is checked first. ``isinstance`` would also
    # accept a bool.
    if type(created) is int:
        return created if created < LEAST_MILLISECONDS else created // 1000
    if isinstance(created, str):
        digits = _DIGITS.fullmatch(created)
        return _iso_seconds(created) if digits is None else seconds_of(int(digits[1]))
    if type(created) is float:
        return floor(created if created < LEAST_MILLISECONDS else created // 1000)
    return None


def plausible(created_s: int, arrived_ms: int) -> bool:
    """Return whether an event was created since the year 2000, and at most a day after it arrived.

    A clock with a wrong unit or a wrong year must not decide which fact of a payment is the
    earliest.
    """
    return _YEAR_2000_S <= created_s <= arrived_ms // 1000 + _DAY_S


def _iso_seconds(text: str) -> int | None:
    found = _ISO_8601.fullmatch(text)
    if found is None:
        return None
    year, *rest = (int(each or 0) for each in found.group(1, 2, 3, 4, 5, 6))
    month, day = rest[0], rest[1]
    if not year or not month or any(map(gt, rest, _MOST)):
        return None
    if not 0 < day <= monthrange(year, month)[1]:
        return None
    hours, minutes = int(found[8] or 0), int(found[9] or 0)
    if (hours, minutes) > (23, 59) or minutes > 59:  # noqa: PLR2004 - a day's last minute
        return None
    offset_s = 3600 * hours + 60 * minutes
    local_s = timegm((year, *rest))
    return local_s + offset_s if found[7] == "-" else local_s - offset_s
