"""Removes the deadline of all property tests, because a slow example is not a fault."""

from hypothesis import settings

settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")
