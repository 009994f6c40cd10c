"""A run with faults is judged by its limits; each violated limit is reported with the cause."""

import time
from types import SimpleNamespace

import msgspec
import pytest

from cli.run.programs import Command
from cli.simulate.latency import Attempt
from faults.answers import Answers
from faults.limits import limits
from faults.program import ProgramUnderFault, Refusal, Stop, UnplannedEnd
from faults.report import WIDTH, line
from faults.run import Cost

COST = Cost(
    number=7,
    kind="worker killed for good",
    target="worker 1",
    held_s=12.0,
    cost_s=12.0,
    take_over=True,
    kafka_away=False,
    stops=(),
    answer_s=0.2,
)


def with_stop(took_s: float, code: int = 0, **more: object) -> Cost:
    stop = Stop("worker 1", 0.0, took_s, f"ended with exit code {code}", code == 0, ("why",))
    return msgspec.structs.replace(COST, stops=(stop,), **more)


class Away:
    """An ingress that was away (killed or frozen) only at the given times."""

    def __init__(self, *times: float) -> None:
        self._times = times

    def was_away(self, since_s: float, until_s: float) -> bool:
        return any(since_s <= time_s <= until_s for time_s in self._times)


def heard(*attempts: Attempt, away: tuple[float, ...] = ()) -> Answers:
    answers = Answers(Away(*away))
    for attempt in attempts:
        answers.judge(attempt)
    return answers


def broken(*costs: Cost, answers: Answers | None = None, slack: float = 1.0, **stage) -> list[str]:
    played = SimpleNamespace(**{"unplanned": [], "refusals": [], **stage})
    judged = limits(played, costs, answers or heard(), slack)
    return [each for limit in judged for each in limit.broken]


def test_no_limit_is_violated_if_everything_is_on_time():
    assert broken(COST, with_stop(9.9), answers=heard(Attempt(0.0, 9.9, "503"))) == []


def test_a_limit_without_a_measurement_is_not_reported_as_met():
    judged = limits(SimpleNamespace(unplanned=[], refusals=[]), [], heard())
    assert [limit.measured for limit in judged[1:5]] == ["", "", "", ""]


def test_folding_that_never_resumes_violates_a_limit():
    cost = msgspec.structs.replace(COST, cost_s=None)
    assert broken(cost) == ["fault 7, worker killed for good: did not fold again in time"]


def test_partitions_that_are_taken_over_too_late_violate_a_limit():
    late = msgspec.structs.replace(COST, cost_s=15.5)
    (found,) = broken(late)
    assert "others took 15.5 s to fold the partitions of worker 1: expected at most 15 s" in found
    assert broken(late, slack=2) == []
    assert broken(msgspec.structs.replace(late, take_over=False)) == []


def test_a_late_or_missing_answer_violates_a_limit_unless_ingress_was_away():
    slow, none = Attempt(5.0, 10.5, "200"), Attempt(50.0, 30.0, "timeout")
    late = broken(answers=heard(slow, none))
    assert [each.partition(": ")[0] for each in late] == [
        "ingress was up the whole time, but a delivery took 10.5 s (200)",
        "ingress was up the whole time, but a delivery took 30.0 s (timeout)",
    ]
    assert broken(answers=heard(slow, none, away=(15.0, 51.0))) == []


@pytest.mark.parametrize(("took_s", "code"), [(10.1, 0), (1.0, 1)])
def test_a_program_that_stops_too_slowly_or_with_an_error_violates_a_limit(took_s, code):
    violation, last_line = broken(with_stop(took_s, code))
    assert f"worker 1 ended with exit code {code}, {took_s} s after SIGTERM" in violation
    assert last_line == "  why"


def test_while_kafka_is_away_a_program_may_stop_with_any_exit_code_but_not_too_late():
    assert broken(with_stop(9.9, 1, kafka_away=True)) == []
    assert broken(with_stop(10.1, 1, kafka_away=True)) != []


def test_a_program_that_cannot_run_and_ends_too_late_violates_a_limit():
    late = Refusal("stranger", "worker of other rules", 30.5)
    (found,) = broken(refusals=[late])
    assert found.startswith("stranger ended after 30.5 s during worker of other rules: expected an")
    assert broken(refusals=[late], slack=2) == []


def test_a_program_that_ended_by_itself_is_reported_with_its_last_lines_of_output():
    end = UnplannedEnd("worker 1", "ended with exit code 1", "broker killed", ("why",))
    assert broken(unplanned=[end]) == [
        "worker 1 ended with exit code 1 during broker killed:",
        "  why",
    ]


@pytest.mark.parametrize("cost_s", [None, 119.9])
def test_the_longest_line_about_a_fault_fits_a_terminal(cost_s):
    names = {"kind": "worker killed for good", "target": "extra 1 and extra 2"}
    longest = with_stop(10.1, 0, number=200, held_s=119.9, cost_s=cost_s, **names)
    assert len(line(longest)) <= WIDTH


def test_a_program_knows_when_it_was_killed_or_frozen(tmp_path):
    program = ProgramUnderFault(Command("settings", {}), tmp_path, label="ingest", url="")
    began_s = time.monotonic()
    assert not program.was_away(began_s, time.monotonic())
    program.freeze()
    frozen_s = time.monotonic()
    # The program is still frozen, so it also counts as away at every later time.
    assert program.was_away(frozen_s + 100, frozen_s + 101)
    program.go_on()
    gone_on_s = time.monotonic()
    assert program.was_away(began_s, frozen_s)
    assert not program.was_away(gone_on_s + 0.001, gone_on_s + 1)
