"""Settings of all property tests: they have no deadline, since a slow example is not a fault."""

from hypothesis import settings

settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")
