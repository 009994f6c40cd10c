"""The overviews of several workers are merged, even if some workers are not ready."""

from typing import Any

import pytest
from msgspec.structs import replace

from ledger.orders import Totals
from processors.views.overview import Overview, WorkerState, merged


def one(address: str, partitions: list[int], **more: Any) -> Overview:
    """Return the overview of one worker."""
    given: dict[str, Any] = {
        "at_ms": 1,
        "ready": True,
        "missing": [],
        "workers": [WorkerState(address=address, ready=True, partitions=partitions)],
        "outcomes": {},
        "types": {},
        "rejected": {},
        "per_second": [],
        "lag": {},
        "totals": {},
        "anomalies": {},
    }
    return Overview(**(given | more))


def test_counts_and_lags_and_totals_and_anomalies_of_the_workers_are_added():
    both = merged(
        [
            one(
                "b",
                [0, 1],
                outcomes={"folded": 2},
                lag={"dedupe": 5, "orders": 0},
                totals={"KZT": Totals(10, 4, 6), "USD": Totals(1, 0, 1)},
                anomalies={"any": 1},
            ),
            one(
                "a",
                [2, 3],
                outcomes={"folded": 1, "duplicate": 1},
                lag={"dedupe": 1, "orders": 2},
                totals={"KZT": Totals(2**60, 0, 2**60)},
                anomalies={"any": 2},
            ),
        ],
        4,
    )
    assert [worker.address for worker in both.workers] == ["a", "b"]
    assert (both.ready, both.missing) == (True, [])
    assert both.outcomes == {"duplicate": 1, "folded": 3}
    assert both.lag == {"dedupe": 6, "orders": 2}
    assert both.totals == {"KZT": Totals(2**60 + 10, 4, 2**60 + 6), "USD": Totals(1, 0, 1)}
    assert both.anomalies == {"any": 3}


def test_counts_of_the_same_second_are_added_however_long_each_worker_has_counted():
    both = merged([one("a", [0], per_second=[1, 2, 3]), one("b", [1], per_second=[10])], 2)
    assert both.per_second == [1, 2, 13]


def test_a_partition_that_no_ready_worker_has_is_reported_as_missing():
    down = one("b", [1])
    down = replace(down, workers=[replace(down.workers[0], ready=False, reason="recovering")])
    both = merged([one("a", [0]), down], 3)
    assert (both.ready, both.missing) == (False, [1, 2])


def test_if_the_totals_of_one_worker_are_missing_there_are_no_totals():
    both = merged([one("a", [0], totals={"KZT": Totals(1, 0, 1)}), one("b", [1], totals=None)], 2)
    assert both.totals is None
    assert both.anomalies == {}


@pytest.mark.parametrize("partitions", [[0, 1], [1, 1], []], ids=str)
def test_there_are_no_totals_unless_each_partition_belongs_to_exactly_one_worker(partitions):
    more = {"totals": {"KZT": Totals(1, 0, 1)}, "anomalies": {"any": 1}}
    both = merged([one("a", [0], **more), one("b", partitions, **more)], 2)
    assert (both.totals, both.anomalies) == (None, None)
