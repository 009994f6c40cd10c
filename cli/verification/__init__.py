"""The commands `verify`, `audit`, `rebuild` and `prove`, which show whether the ledger is correct.

``ledger.verification.truth`` folds the log from scratch, without the workers' code. ``verify`` uses
``auditor`` to compare the ledger with the result once. ``audit`` uses ``follower`` to compare them
again and again. Both use ``replicas`` to compare the workers' disks, and ``verify`` and ``rebuild``
print differences with ``findings``. ``rebuild`` builds a new version of everything that is derived
from the log; ``comparer`` compares the versions, and ``rebuilt`` prints the result. ``prove``
checks an order's proof, and needs no connection.
"""
