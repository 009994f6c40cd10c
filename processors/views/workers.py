"""The group's workers, for answers that combine the parts of all workers.

A worker that has no partitions is asked like any other worker.
"""

from collections.abc import Iterable
from typing import Any, Final

from yarl import URL

from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import ProblemError

SCOPES: Final = ("all", "worker")


def asks_this_one(request: Any) -> bool:
    """Return whether a request asks only for this worker's part (``scope=worker``)."""
    return parameters.one_of(request, "scope", SCOPES) == "worker"


def other_workers(app: LedgerApp) -> list[URL]:
    """Return the addresses of the group's other workers, as known from the last rebalance."""
    mine = str(app.conf.canonical_url)
    return [URL(url) for url in sorted(app.assignor.tables_metadata()) if url != mine]


def is_whole(served: Iterable[int], partitions: int) -> bool:
    """Return whether each partition is served exactly once.

    During a rebalance, two workers may serve the same partition.
    """
    return sorted(served) == list(range(partitions))


def require_whole(served: Iterable[int], partitions: int) -> None:
    """Raise a 503 unless each partition is served exactly once."""
    served = sorted(served)
    if not is_whole(served, partitions):
        detail = f"expected one answer for each of {partitions} partitions, got {served}"
        raise ProblemError(503, "not_ready", detail)
