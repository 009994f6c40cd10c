"""The commands `verify`, `audit`, `rebuild` and `prove`, which show whether the ledger is correct.

``ledger.verification.truth`` folds the log from scratch, without the workers' code. ``verify``
compares the ledger with it once, by ``auditor``, and ``audit`` forever, by ``follower``.
``findings`` prints the differences. ``rebuild`` makes another version of all that is derived from
the log; ``comparer`` and ``rebuilt`` compare it. ``prove`` checks one order's proof offline.
"""
