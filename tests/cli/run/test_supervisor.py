"""Programs that die are started again: later each time, and soon again once they ran well."""

import pytest

from cli.kafka.distribution import KafkaNotStartedError
from cli.run.supervisor import Backoff, Supervisor


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Program:
    """Ends when it is told to; can refuse to start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = 0
        self.code: int | None = None
        self.refuses = False

    def start(self) -> None:
        if self.refuses:
            raise KafkaNotStartedError("no room")
        self.starts += 1
        self.code = None

    def exit_code(self) -> int | None:
        return self.code


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def _step_after(supervisor: Supervisor, clock: _Clock, seconds: float) -> None:
    clock.now_s += seconds
    supervisor.step()


def test_the_wait_doubles_up_to_a_bound():
    backoff = Backoff(first_s=1, longest_s=30)
    assert [backoff.delay_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay_s(10_000) == 30


def test_a_program_that_ran_well_starts_from_the_shortest_wait():
    backoff = Backoff(well_after_s=60)
    assert backoff.failures(5, ran_s=59) == 6
    assert backoff.failures(5, ran_s=60) == 1


def test_a_program_that_dies_is_started_again_and_said(clock):
    said: list[str] = []
    program = _Program("worker")
    supervisor = Supervisor([program], said.append, clock=clock)
    program.code = -9
    supervisor.step()
    assert said == ["worker was ended by SIGKILL; starting it again in 1 s"]
    _step_after(supervisor, clock, 0.9)
    assert program.starts == 0
    _step_after(supervisor, clock, 0.1)
    assert program.starts == 1
    assert said[1:] == ["worker was started again"]


def test_failures_in_a_row_wait_longer_until_it_runs_well(clock):
    said: list[str] = []
    program = _Program("worker")
    supervisor = Supervisor([program], said.append, clock=clock)
    for delay_s, ran_s in [(1, 0), (2, 5), (4, 5), (1, 61)]:
        _step_after(supervisor, clock, ran_s)
        program.code = 1
        supervisor.step()
        assert said[-1] == f"worker ended with exit code 1; starting it again in {delay_s} s"
        _step_after(supervisor, clock, delay_s)
        assert program.code is None


def test_a_program_that_cannot_be_started_is_tried_again_and_the_others_go_on(clock):
    said: list[str] = []
    kafka, worker = _Program("kafka"), _Program("worker")
    supervisor = Supervisor([kafka, worker], said.append, clock=clock)
    kafka.code, kafka.refuses = 1, True
    supervisor.step()
    worker.code = 1
    _step_after(supervisor, clock, 1)
    assert "kafka can't be started: no room; starting it again in 2 s" in said
    _step_after(supervisor, clock, 1)
    assert worker.starts == 1
    kafka.refuses = False
    _step_after(supervisor, clock, 1)
    assert kafka.starts == 1
