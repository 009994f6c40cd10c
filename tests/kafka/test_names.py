"""If two processes have one worker's name, the first one ends; no event is lost or doubled."""

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

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "one", webhook_secrets=SECRET)


def test_the_first_of_two_workers_with_one_name_ends_with_the_reason_and_no_event_is_lost(
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
                # A supervisor that does not know about the second worker restarts the first one.
                first.start()
                assert second.reason_of_end(within_s=60).startswith("TakenNameError: ")
        deliver(env, event(1, merchantReference="ord_1"))
        first.wait_ready()
        wait_folded(env, first)
    entries = [ENTRIES.decode(r.value).entry_id for r in read_topic(env, names_of(env).entries)]
    assert len(set(entries)) > 50
    code, output = verify(env)
    assert code == 0, output
