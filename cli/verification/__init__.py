"""The commands `verify`, `audit`, `rebuild` and `prove`, which show whether the ledger is correct.

``ledger.verification.truth`` folds the log from scratch, without the workers' code. ``verify``
compares the ledger with the result once (``auditor``), and ``audit`` forever (``follower``).
``findings`` prints differences. ``rebuild`` builds a new version of everything derived from the
log; ``comparer`` and ``rebuilt`` compare the versions. ``prove`` checks an order's proof offline.
"""
