"""A question that gets no answer is repeated; if the answer never comes, an error says why."""

import pytest
from aiokafka.errors import NodeNotReadyError, TopicAuthorizationFailedError

from runtime.kafka import administration
from runtime.kafka.administration import answer
from runtime.kafka.topic_looks import TopicsError

# A client raises a bare ``TimeoutError`` if it can't connect to the broker that it must ask.
UNANSWERED = (TimeoutError(), NodeNotReadyError(), None)


class Asked:
    """A question that gets these outcomes one after another; later, it gets the last outcome."""

    def __init__(self, *outcomes: Exception | str | None) -> None:
        self.times = 0
        self._outcomes = outcomes

    async def __call__(self) -> str | None:
        outcome = self._outcomes[min(self.times, len(self._outcomes) - 1)]
        self.times += 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_a_question_that_gets_no_answer_is_asked_again():
    ask = Asked(*UNANSWERED, "yes")
    assert await answer(ask, "the cluster can't be described") == "yes"
    assert ask.times == len(UNANSWERED) + 1


@pytest.mark.parametrize("outcome", UNANSWERED)
async def test_the_error_for_a_question_that_is_never_answered_names_the_question(
    monkeypatch, outcome
):
    monkeypatch.setattr(administration, "_ANSWERED_WITHIN_S", 0.2)
    with pytest.raises(TopicsError, match=r"the cluster can't be described: \S+.*brokers"):
        await answer(Asked(outcome), "the cluster can't be described")


async def test_a_refused_question_is_not_repeated():
    ask = Asked(TopicAuthorizationFailedError())
    with pytest.raises(TopicsError, match="DescribeConfigs"):
        await answer(ask, "the cluster can't be described")
    assert ask.times == 1
