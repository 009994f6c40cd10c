"""Starts long tests first, and gives each process of pytest-xdist its own ports.

No property test has a deadline, because a slow example is not a fault.
"""

import os
from collections import Counter

import pytest
from hypothesis import settings

from cli.kafka import process

settings.register_profile("ledger", deadline=None)
settings.load_profile("ledger")

# The name that pytest-xdist gives to this process, such as "gw0"; empty without pytest-xdist.
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")


def pytest_configure() -> None:
    """Let each process choose only ports from its own share.

    Otherwise a process could take a port that another process has chosen but not yet opened.
    """
    if PROCESS:
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        # A process that replaces a crashed process has a number that is not below ``count``.
        own = int(PROCESS.removeprefix("gw")) % count
        process._returned.update(port for port in range(2**16) if port % count != own)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test an id of its own, and start the files with the highest time limits first.

    pytest-xdist runs only one of several tests with the same id, and schemathesis gives the same id
    to the tests of all operations in a document. A file that sets no limit has short tests, so it
    starts last.
    """
    for item in items:
        if operation := getattr(item, "operation_label", None):
            item._id = item._id.with_params(operation)
    repeated = sorted(name for name, n in Counter(each.nodeid for each in items).items() if n > 1)
    if repeated:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(repeated)}")
    if PROCESS:
        items.sort(key=_limit_s, reverse=True)


def _limit_s(item: pytest.Item) -> float:
    limit = item.get_closest_marker("timeout")
    return limit.args[0] if limit else 0
