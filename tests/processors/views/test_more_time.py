"""Each view declares the additional time that its answer may take."""

from types import SimpleNamespace
from typing import Any

import pytest

from processors.views import orders, waiting
from processors.views.answers import ProblemError
from runtime.kafka.topic_reader import READ_WITHIN_S


def request(**query: str) -> Any:
    return SimpleNamespace(query=query)


@pytest.mark.parametrize(
    ("query", "more_s"),
    [
        ({}, 0),
        ({"wait": "20s"}, 0),
        ({"event": "evt_1"}, READ_WITHIN_S),
        ({"event": "evt_1", "wait": "20s"}, READ_WITHIN_S + 20),
        ({"as_of": "2026-01-01"}, READ_WITHIN_S),
    ],
)
def test_the_additional_time_includes_the_wait_for_an_event_and_the_read_of_the_log(query, more_s):
    assert orders.more_s(request(**query)) == more_s
    if "as_of" not in query:
        assert waiting.more_s(request(**query)) == more_s


def test_an_invalid_wait_is_refused_before_another_worker_is_asked():
    with pytest.raises(ProblemError, match="`wait`"):
        orders.more_s(request(event="evt_1", wait="soon"))
