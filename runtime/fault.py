"""Defines ``Fault``: a difference from the expected state, and its remedy if there is one."""

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """A difference from the expected state, and its remedy.

    If a fault has no remedy, it may end by itself. ``refuses_some`` means that the broker refuses
    some records, but keeps all other records.
    """

    what: str
    remedy: str = ""
    refuses_some: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what
