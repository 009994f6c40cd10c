"""Whatever ingress does, every event is delivered in the end, unless the simulation is stopped.

After a stop, the simulation knows which events were not acknowledged.
"""

import asyncio
import json
from collections import Counter
from random import Random

import pytest

from cli.errors import WrongOptionError
from cli.kafka.process import free_port
from cli.simulate import oracle
from cli.simulate.delivery import SenderOptions
from cli.simulate.schedule import deliveries
from cli.simulate.simulation import Simulation
from tests.cli.simulate.conftest import NEW, OLD, Ingress
from tests.fakes import until

_EVENTS = 150


def _simulation(url: str, *, events: int = _EVENTS, seed: int = 1, **more) -> Simulation:
    options = {"secrets": (OLD, NEW), "time_scale": 0.001, **more}
    return Simulation(seed, events, SenderOptions(url=url, **options))


def _all_sent(events: int = _EVENTS, seed: int = 1) -> list[bytes]:
    return [each.body for each in deliveries(seed, events)]


async def test_if_ingress_always_answers_every_delivery_is_acknowledged(ingress):
    simulation = _simulation(ingress.url)
    await simulation.run()
    assert sorted(ingress.kept) == sorted(_all_sent())
    assert simulation.owed == {}
    acknowledged = [body for bodies in simulation.acknowledged.values() for body in bodies]
    assert sorted(acknowledged) == sorted(ingress.kept)
    assert all(
        json.loads(bodies[0])["id"] == name for name, bodies in simulation.acknowledged.items()
    )
    tally = simulation.tally
    assert tally.sent == tally.acknowledged == len(_all_sent())
    assert tally.attempts == len(ingress.bodies)
    assert simulation.orders() == oracle.orders(_all_sent())


async def test_a_failed_delivery_is_retried_until_it_is_acknowledged(ingress):
    random = Random(4)
    faults = ("refuse", "close", "lost", "hang", None, None)
    ingress.fault = lambda _body: random.choices(faults, weights=(9, 9, 9, 1, 20, 20))[0]
    simulation = _simulation(ingress.url, answer_within_s=0.3)
    await simulation.run()
    assert simulation.owed == {}
    acknowledged = Counter(b for bodies in simulation.acknowledged.values() for b in bodies)
    assert acknowledged == Counter(_all_sent())
    assert acknowledged <= Counter(ingress.kept)
    tally = simulation.tally
    # On a busy machine, an answer may be late; then its delivery counts as unanswered.
    assert 0 < tally.refused["503 log_unavailable"] <= ingress.refused
    assert tally.unanswered["timeout"] > 0
    assert tally.unanswered["ServerDisconnectedError"] > 0
    assert tally.attempts - sum((tally.refused + tally.unanswered).values()) == tally.acknowledged
    assert tally.retries == tally.attempts - len(_all_sent()) > 0


async def test_the_sequence_of_first_attempts_does_not_depend_on_the_answers(ingress):
    random = Random(1)
    ingress.fault = lambda _body: random.choice(("refuse", None))
    simulation = _simulation(ingress.url, concurrency=1)
    await simulation.run()
    # Duplicates may have the same bytes, so only the first occurrence of each body is compared.
    assert list(dict.fromkeys(ingress.bodies)) == list(dict.fromkeys(_all_sent()))


async def test_every_event_reaches_an_ingress_that_is_down_at_first_and_again_later():
    ingress = Ingress()
    ingress.port = free_port()
    simulation = _simulation(ingress.url, time_scale=0.02)
    running = asyncio.create_task(simulation.run())
    unanswered = simulation.tally.unanswered
    await until(lambda: unanswered["ClientConnectorError"] > 0)
    ingress.fault = lambda _body: "refuse" if len(ingress.kept) >= 50 else None
    await ingress.start()
    await until(lambda: ingress.refused > 0)
    await ingress.stop()
    before = unanswered.total()
    await until(lambda: unanswered.total() > before)
    ingress.fault = lambda _body: None
    await ingress.start()
    await running
    await ingress.stop()
    assert Counter(_all_sent()) <= Counter(ingress.kept)


async def test_the_signing_secret_changes_halfway_through_the_run(ingress):
    await _simulation(ingress.url, concurrency=1, events=400).run()
    signed = [secret for secret in ingress.signed_with if secret]
    change = signed.index(NEW)
    assert set(signed[:change]) == {OLD}
    assert set(signed[change:]) == {NEW}
    seen = {json.loads(body)["id"] for body in ingress.bodies[:change]}
    assert 150 < len(seen) < 250


async def test_if_there_is_no_second_secret_the_first_secret_signs_every_delivery(ingress):
    ingress.secrets = [OLD]
    await _simulation(ingress.url, secrets=(OLD,)).run()
    assert set(ingress.signed_with) <= {OLD, None}


async def test_a_delivery_with_a_wrong_clock_is_refused_once_and_then_accepted(ingress):
    simulation = _simulation(ingress.url, events=600)
    await simulation.run()
    far_off = sum(abs(each.skew) > 1 for each in deliveries(1, 600))
    assert dict(simulation.tally.refused) == {"401 timestamp_out_of_tolerance": far_off}
    assert simulation.tally.retries == far_off > 0


async def test_after_a_stop_unacknowledged_events_are_owed_and_their_orders_are_undecided(ingress):
    ingress.fault = lambda body: "hang" if json.loads(body)["created"] % 4 == 0 else None
    simulation = _simulation(ingress.url, concurrency=16)
    stop = asyncio.Event()
    running = asyncio.create_task(simulation.run(stop))
    await until(lambda: len(simulation.owed) >= 10)
    stop.set()
    async with asyncio.timeout(5):
        await running
    attempted = {json.loads(body)["id"] for body in ingress.bodies}
    # An event is also owed if its request was stopped before the request reached ingress.
    assert attempted <= simulation.owed.keys() | simulation.acknowledged.keys()
    assert not simulation.owed.keys() & simulation.acknowledged.keys()
    undecided = simulation.undecided()
    assert undecided
    assert not undecided & simulation.orders().keys()
    acknowledged = [bodies[0] for bodies in simulation.acknowledged.values()]
    assert simulation.orders().items() <= oracle.orders(acknowledged).items()


async def test_after_finish_is_called_nothing_new_is_sent_and_all_sent_events_are_acknowledged(
    ingress,
):
    ingress.fault = lambda body: "refuse" if ingress.bodies.count(body) < 3 else None
    simulation = _simulation(ingress.url, events=10**9, concurrency=8)
    running = asyncio.create_task(simulation.run())
    await until(lambda: len(simulation.acknowledged) > 20)
    simulation.finish()
    # A delivery may be a task that has not run yet; the task starts in the loop's next turn.
    await asyncio.sleep(0)
    sent = simulation.tally.sent
    await running
    assert simulation.tally.sent == sent == simulation.tally.acknowledged
    assert simulation.owed == {}


async def test_the_simulation_does_not_send_faster_than_the_given_rate(ingress):
    simulation = _simulation(ingress.url, events=20, rate_per_s=40, secrets=(OLD,))
    began_s = asyncio.get_running_loop().time()
    await simulation.run()
    sent = simulation.tally.sent
    assert len(ingress.arrived_s) == sent + simulation.tally.retries
    assert ingress.arrived_s[-1] - began_s >= (sent - 1) / 40


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1/x", "http://"])
def test_an_invalid_address_is_refused_at_once(url):
    with pytest.raises(WrongOptionError, match="--url"):
        SenderOptions(url=url, secrets=(OLD,))
