"""A program that ends is restarted; early ends lengthen the delay, and a long run resets it."""

import pytest

from cli.kafka.distribution import KafkaNotStartedError
from cli.run.supervisor import Backoff, Supervisor


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Program:
    """A program that ends when the test sets its exit code, and that may refuse to start."""

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


def test_the_delay_doubles_up_to_a_limit():
    backoff = Backoff(first_s=1, longest_s=30)
    assert [backoff.delay_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay_s(10_000) == 30


def test_a_program_that_ran_for_long_is_restarted_after_the_shortest_delay():
    backoff = Backoff(well_after_s=60)
    assert backoff.failures(5, ran_s=59) == 6
    assert backoff.failures(5, ran_s=60) == 1


def test_a_program_that_ends_is_restarted_and_reported(clock):
    reports: list[str] = []
    program = _Program("worker")
    supervisor = Supervisor([program], reports.append, clock=clock)
    program.code = -9
    supervisor.step()
    assert reports == ["worker was ended by SIGKILL; starting it again in 1 s"]
    _step_after(supervisor, clock, 0.9)
    assert program.starts == 0
    _step_after(supervisor, clock, 0.1)
    assert program.starts == 1
    assert reports[1:] == ["worker was started again"]


def test_repeated_failures_lengthen_the_delay_until_the_program_runs_for_long(clock):
    reports: list[str] = []
    program = _Program("worker")
    supervisor = Supervisor([program], reports.append, clock=clock)
    for delay_s, ran_s in [(1, 0), (2, 5), (4, 5), (1, 61)]:
        _step_after(supervisor, clock, ran_s)
        program.code = 1
        supervisor.step()
        assert reports[-1] == f"worker ended with exit code 1; starting it again in {delay_s} s"
        _step_after(supervisor, clock, delay_s)
        assert program.code is None


def test_a_program_that_cannot_start_is_retried_and_the_other_programs_continue(clock):
    reports: list[str] = []
    kafka, worker = _Program("kafka"), _Program("worker")
    supervisor = Supervisor([kafka, worker], reports.append, clock=clock)
    kafka.code, kafka.refuses = 1, True
    supervisor.step()
    worker.code = 1
    _step_after(supervisor, clock, 1)
    assert "kafka can't be started: no room; starting it again in 2 s" in reports
    _step_after(supervisor, clock, 1)
    assert worker.starts == 1
    kafka.refuses = False
    _step_after(supervisor, clock, 1)
    assert kafka.starts == 1
