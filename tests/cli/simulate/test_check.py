"""The check of a simulation reads all orders, and reports each order that is not as predicted."""

import asyncio

import msgspec
import pytest

from cli.errors import ViewError
from cli.kafka.process import free_port
from cli.simulate import oracle
from cli.simulate.check import Check
from cli.simulate.schedule import deliveries
from tests.fakes import until

_PREDICTED = oracle.orders(each.body for each in deliveries(2, 200))
_A, _B, *_ = (name for name, order in _PREDICTED.items() if order)
_GONE = next(name for name, order in _PREDICTED.items() if order is None)
_DOCUMENTS = {name: msgspec.json.encode(order) for name, order in _PREDICTED.items() if order}


async def _check(*urls, within_s=0.0, token=None, predicted=None):
    return await Check(predicted or _PREDICTED, 4).run(urls, token, within_s)


def _altered(order_id, **fields):
    return msgspec.json.encode(msgspec.structs.replace(_PREDICTED[order_id], **fields))


async def test_if_all_orders_equal_the_prediction_no_difference_is_reported(views):
    views.documents = dict(_DOCUMENTS)
    check = Check(_PREDICTED, 4)
    assert await check.run((views.origin,), None, 5) == []
    assert set(views.asked) == set(_PREDICTED)
    assert check.settled == check.total == len(_PREDICTED)


async def test_for_each_differing_order_the_expected_and_the_received_values_are_reported(views):
    views.documents = _DOCUMENTS | {_A: _altered(_A, version=99), _GONE: _DOCUMENTS[_B]}
    del views.documents[_B]
    found = {each.order_id: each.lines for each in await _check(views.origin, within_s=0.5)}
    assert found == {
        _A: (f"version: expected {_PREDICTED[_A].version}, got 99",),
        _B: (f"expected {_PREDICTED[_B].status}, got nothing",),
        _GONE: (f"expected nothing, got {_PREDICTED[_B].status}",),
    }


async def test_the_check_waits_until_the_orders_are_right(views):
    checking = asyncio.create_task(_check(views.origin, within_s=20))
    await until(lambda: len(views.asked) > len(_PREDICTED))
    views.documents = dict(_DOCUMENTS)
    assert await checking == []


async def test_an_order_that_becomes_wrong_during_the_check_is_found(views):
    views.documents = _DOCUMENTS | {_A: _altered(_A, version=99)}
    checking = asyncio.create_task(_check(views.origin, within_s=3))
    await until(lambda: views.asked.count(_A) > 2)
    views.documents = _DOCUMENTS | {_B: _altered(_B, version=98)}
    assert [each.order_id for each in await checking] == [_B]


async def test_a_worker_that_does_not_answer_is_skipped(views):
    views.documents = dict(_DOCUMENTS)
    nobody = f"http://127.0.0.1:{free_port()}"
    assert await _check(nobody, views.origin, within_s=5) == []


@pytest.mark.parametrize(("status", "reason"), [(503, "503"), (404, "404"), (500, "500")])
async def test_an_answer_that_does_not_have_the_order_is_a_difference(views, status, reason):
    views.status = status
    (found,) = await _check(views.origin, predicted={_GONE: None}, within_s=0.3)
    assert reason in found.lines[0]


async def test_a_wrong_token_is_a_clear_error(views):
    views.token = "right"
    with pytest.raises(ViewError, match="LEDGER_API_TOKEN"):
        await _check(views.origin, token="wrong", within_s=5)
    views.documents = dict(_DOCUMENTS)
    assert await _check(views.origin, token="right", within_s=5) == []


async def test_an_answer_that_is_not_an_order_is_a_difference(views):
    views.documents = {_A: b"[]"}
    (found,) = await _check(views.origin, predicted={_A: _PREDICTED[_A]}, within_s=0.3)
    assert "no order document" in found.lines[0]
