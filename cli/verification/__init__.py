"""Whether the ledger is right: the commands `verify`, `audit`, `rebuild` and `prove`.

The log is folded from scratch by ``ledger.verification.truth``, without the workers' code.
``verify`` compares once,
``audit`` without an end; ``auditor`` is what both have, ``follower`` reads on as the log grows,
``findings`` is what they print. ``rebuild`` makes another version of what follows from the log,
which ``comparer`` and ``rebuilt`` compare. ``prove`` checks one order's proof, offline.
"""
