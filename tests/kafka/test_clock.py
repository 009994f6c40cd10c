"""No delivery is lost when the clock jumps, for example after an NTP correction or a VM's pause.

`libfaketime` changes the wall clock that the programs see. Their monotonic clock does not jump.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from faults.clock import LIBRARY, ProgramClock
from ingest.settings import WEBHOOKS_PATH
from tests.ingest.conftest import event
from tests.kafka.harness import WorkerProcess, deliver, environment, free_port, until
from tests.kafka.harness import event as harness_event
from tests.kafka.programs import AuditProcess, program, wait_ingress
from tests.kafka.verification import verify

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed"),
]

HOUR_S = 3600


class Machine:
    """A worker, an ingress and an audit, each with a clock that can be set."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path) -> None:
        self._clocks = {
            name: ProgramClock(folder / f"{name}.clock") for name in ("worker", "ingest", "audit")
        }
        self.env = environment(
            kafka.bootstrap,
            folder / "ledger",
            allow_unsigned="true",
            ingest_port=free_port(),
            answer_within_s=4,
        )
        self.worker = program("worker", self.env | self._clocks["worker"].environment)
        self.ingress = program("ingest", self.env | self._clocks["ingest"].environment)
        self.audit = AuditProcess(self.env | self._clocks["audit"].environment, folder / "audit")

    @property
    def programs(self) -> tuple[WorkerProcess, ...]:
        return (self.worker, self.ingress, self.audit)

    def set_clock(self, ahead_s: int, *names: str) -> None:
        for name in names or self._clocks:
            self._clocks[name].set(ahead_s)

    def deliver(self, number: int) -> httpx.Response:
        data = {
            "id": f"pay_{number}",
            "amount": 500,
            "currency": "KZT",
            "status": "succeeded",
            "merchantReference": f"ord_{number}",
        }
        url = f"http://127.0.0.1:{self.env['LEDGER_INGEST_PORT']}{WEBHOOKS_PATH}"
        body = event(f"evt_{number}", data=data)
        headers = {"Content-Type": "application/json"}
        return httpx.post(url, content=body, headers=headers, trust_env=False, timeout=30)

    def wait_folded(self, number: int) -> None:
        until(
            lambda: self.worker.get(f"/orders/ord_{number}")[0] == 200,
            within_s=120,
            what=f"order {number}\n{self.worker.tail()}",
        )

    def wait_folded_or_ended(self, number: int) -> None:
        def done() -> bool:
            assert self.worker.process
            ended = self.worker.process.poll() is not None
            return ended or self.worker.get(f"/orders/ord_{number}")[0] == 200

        until(done, within_s=60, what=f"order {number}, or the end of the worker")


@pytest.fixture
def machine(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(kafka, tmp_path)
    with made.worker, made.ingress, made.audit:
        made.worker.wait_ready(90)
        wait_ingress(made.ingress)
        yield made


def test_no_program_ends_if_its_clock_jumps_back_or_jumps_less_than_an_hour_ahead(machine):
    for number, ahead_s in enumerate((0, -2 * HOUR_S, HOUR_S // 2, -30 * 24 * HOUR_S, 0)):
        machine.set_clock(ahead_s)
        assert machine.deliver(number).status_code == 200, machine.ingress.tail()
        machine.wait_folded(number)
        machine.audit.wait_rounds()
        assert machine.audit.get("/readyz")[0] == 200, machine.audit.tail()
        assert machine.worker.get("/readyz")[0] == 200, machine.worker.tail()
    assert all(each.process and each.process.poll() is None for each in machine.programs)
    assert len(machine.worker.logged("ready")) == 1
    # The worker restarts with its clock set back by 30 days. By this clock, the worker wrote its
    # tables, commits and claims in the future.
    machine.worker.stop()
    machine.set_clock(-30 * 24 * HOUR_S)
    machine.worker.start()
    machine.worker.wait_ready(90)
    assert machine.deliver(number + 1).status_code == 200
    machine.wait_folded(number + 1)
    code, printed = verify(machine.env)
    assert code == 0, printed


def test_an_ingress_whose_clock_is_hours_ahead_keeps_nothing_until_the_clock_is_right(machine):
    machine.set_clock(3 * HOUR_S, "ingest")
    answer = until(
        lambda: (got := machine.deliver(1)).status_code != 200 and got, within_s=30, what="a 503"
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    assert "this machine's clock is ahead of the brokers'" in answer.json()["detail"]
    machine.set_clock(0, "ingest")
    until(lambda: machine.deliver(1).is_success, within_s=30, what="the delivery")
    machine.wait_folded(1)


def test_a_worker_ends_with_a_clear_reason_and_loses_nothing_if_its_clock_is_hours_ahead(machine):
    machine.set_clock(3 * HOUR_S)
    # libfaketime reads its file every second, so the worker's clock stays right for up to a second.
    for number in range(2, 60):
        deliver(machine.env, [harness_event(number, merchantReference=f"ord_{number}")])
        if machine.worker.process.poll() is not None:
            break
        machine.wait_folded_or_ended(number)
    reason = machine.worker.reason_of_end(5)
    assert reason.startswith("InvalidTimestampError: Kafka refuses records because of their time: ")
    machine.set_clock(0)
    machine.worker.start()
    machine.worker.wait_ready(90)
    for folded in range(2, number + 1):
        machine.wait_folded(folded)
    code, printed = verify(machine.env)
    assert code == 0, printed
