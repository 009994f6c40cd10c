"""If a second process takes a worker's name, the worker ends; no event is lost or counted twice."""

import contextlib
import os
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.wire import ENTRIES
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    WorkerProcess,
    copy_of,
    environment,
    event,
    names_of,
    read_topic,
    until,
    wait_folded,
)
from tests.kafka.verification import deliveries, verify

BURSTS = int(os.environ.get("BURSTS", "4"))
BURST = 30

pytestmark = pytest.mark.timeout(300 + 20 * BURSTS)


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "one", webhook_secrets=SECRET)


def test_the_first_of_two_workers_with_the_same_name_ends_with_the_reason_and_no_event_is_lost(
    env: dict[str, str], tmp_path: Path
) -> None:
    with WorkerProcess(env) as first:
        first.wait_ready()
        with deliveries(env, pause_s=0.02):
            orders = names_of(env).orders
            until(lambda: read_topic(env, orders), within_s=60, what="folded orders")
            with copy_of(env, tmp_path / "copy") as second:
                reason = first.reason_of_end(within_s=60)
                until(lambda: second.logged("ready"), within_s=60, what=f"ready\n{second.tail()}")
                assert reason.startswith("TakenNameError: another process has joined the group")
                assert "delete the file `worker-id` in the copy" in reason
                # A supervisor restarts the first worker, without knowing of the second worker.
                first.start()
                assert second.reason_of_end(within_s=60).startswith("TakenNameError: ")
        deliver(env, event(1, merchantReference="ord_1"))
        first.wait_ready()
        wait_folded(env, first)
    entries = [ENTRIES.decode(r.value).entry_id for r in read_topic(env, names_of(env).entries)]
    assert len(set(entries)) > 50
    code, output = verify(env)
    assert code == 0, output


def test_no_event_is_lost_or_counted_twice_while_two_processes_take_a_name_from_each_other(
    env: dict[str, str], tmp_path: Path
) -> None:
    """In every second round, the process that loses the name is frozen and resumes later."""
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(WorkerProcess(env))
        owner.wait_ready()
        other = copy_of(env, tmp_path / "copy")
        stack.push(other.__exit__)
        for number in range(BURSTS):
            ready = len(other.logged("ready"))
            burst(env, 2 * number)
            if number % 2:
                owner.freeze()
            other.start()
            burst(env, 2 * number + 1)
            until(
                lambda other=other, ready=ready: len(other.logged("ready")) > ready,
                within_s=60,
                what=other.tail,
            )
            if number % 2:
                owner.go_on()
            assert owner.reason_of_end(within_s=60).startswith("TakenNameError: another process")
            owner, other = other, owner
        wait_folded(env, owner)
        entries = [ENTRIES.decode(r.value).entry_id for r in read_topic(env, names_of(env).entries)]
        assert len(set(entries)) == 2 * BURSTS * BURST
        code, output = verify(env)
        assert code == 0, output


def burst(env: dict[str, str], number: int) -> None:
    """Deliver ``BURST`` payments at once; each payment makes one journal entry."""
    first = number * BURST
    deliver(env, *(event(n, merchantReference=f"ord_{n}") for n in range(first, first + BURST)))
