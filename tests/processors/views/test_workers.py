"""A worker asks all other workers for their parts of an answer, and refuses incomplete answers."""

import asyncio

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from processors.views import balances, state
from processors.views.answers import ProblemError
from processors.views.balances import Balance, Balances
from processors.views.workers import is_whole, other_workers, require_whole
from tests.processors.engine.routing import KEY, assign, never_answers, served


def share_out(app, others: dict[str, list[int]]) -> None:
    """Set the partitions that each other worker folds, as a rebalance does."""
    changelog = app.chunk_tables["orders"].changelog_name
    shares = {str(app.conf.canonical_url): [], **others}
    app.assignor.changelog_distribution = {
        url: {changelog: partitions} for url, partitions in shares.items()
    }


async def test_a_worker_that_has_only_standbys_is_also_asked(app):
    share_out(app, {"http://b:1": [], "http://a:1": [0, 1, 2, 3]})
    assert other_workers(app) == [URL("http://a:1"), URL("http://b:1")]


@pytest.mark.parametrize(
    ("served", "whole"), [([1, 0], True), ([0], False), ([0, 1, 1], False), ([0, 0], False)]
)
def test_an_answer_is_complete_if_each_partition_is_served_exactly_once(served, whole):
    assert is_whole(served, 2) is whole
    if not whole:
        with pytest.raises(ProblemError) as raised:
            require_whole(served, 2)
        assert (raised.value.problem.status, raised.value.problem.code) == (503, "not_ready")


@pytest.mark.parametrize("theirs", [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3, 3]], ids=str)
async def test_balances_count_each_partition_exactly_once(app, theirs):
    document = Balances(theirs, [Balance("assets:plexy", "KZT", 5)])

    async def answers(_request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(document))

    async with served(answers) as other:
        share_out(app, {str(other): theirs})
        if theirs == [0, 1, 2, 3]:
            assert (await balances._all_parts(app))[0] == theirs
        else:
            with pytest.raises(ProblemError) as raised:
                await balances._all_parts(app)
            assert str(theirs) in raised.value.problem.detail


async def test_the_reason_why_another_worker_cannot_answer_is_part_of_the_answer(app):
    async def answers(_request: web.Request) -> web.Response:
        problem = {"status": 503, "code": "being_summed", "detail": "ask again"}
        return web.json_response(problem, status=503)

    async with served(answers) as other:
        with pytest.raises(ProblemError) as raised:
            await state.fetch(app, other, "/balances?scope=worker")
    problem = raised.value.problem
    assert (problem.status, problem.code) == (503, "being_summed")
    assert problem.detail == f"the worker at {other} answered 503: ask again"


async def test_a_worker_that_does_not_answer_for_a_key_is_reported_before_the_request_times_out(
    app, monkeypatch
):
    monkeypatch.setattr(state, "ANSWER_WITHIN_S", 0.05)

    async with served(never_answers) as other:
        assign(app, other)
        with pytest.raises(ProblemError, match=f"the worker at {other} has a part of the answer"):
            async with asyncio.timeout(5):
                await state.ask(app, "orders", KEY.decode(), "/orders/1")


async def test_an_answer_that_is_not_a_document_is_reported_as_unavailable(app):
    async def answers(_request: web.Request) -> web.Response:
        return web.Response(text="a proxy's page", status=503)

    async with served(answers) as other:
        with pytest.raises(ProblemError) as raised:
            await state.fetch(app, other, "/balances?scope=worker")
    assert raised.value.problem.code == "unavailable"
