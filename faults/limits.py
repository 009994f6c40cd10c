"""Judges each limit that a run must keep, by the worst measurement for that limit.

A limit that has no measurement is not reported as kept.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from faults.answers import Answers
from faults.injections import KINDS, TAKEN_OVER_WITHIN_S
from faults.program import STOPPED_WITHIN_S, Refusal, UnplannedEnd
from faults.run import Cost
from faults.stage import FaultStage

# A log line may contain a whole traceback, so lines are cut at this length.
_SHOWN_CHARS: Final = 300
# A worker needs less time than this for each of three things: its start, the check of its topics,
# and the check of its disk.
_REFUSED_WITHIN_S: Final = 30.0


class Limit(msgspec.Struct, frozen=True):
    """One limit; ``measured`` is empty if nothing was measured; ``broken`` lists the violations."""

    expected: str
    measured: str
    broken: tuple[str, ...] = ()


def limits(
    stage: FaultStage, costs: Sequence[Cost], answers: Answers, slack: float = 1.0
) -> list[Limit]:
    """Return every limit; ``slack`` multiplies the times, for a machine that has other work."""
    return [
        _folds_again(costs),
        _taken_over(costs, TAKEN_OVER_WITHIN_S * slack),
        _answered(answers),
        _stopped(costs, STOPPED_WITHIN_S * slack),
        _refused(stage.refusals, _REFUSED_WITHIN_S * slack),
        _ended_by_itself(stage.unplanned, costs),
    ]


def _folds_again(costs: Sequence[Cost]) -> Limit:
    never = [cost for cost in costs if cost.cost_s is None]
    return Limit(
        "every partition folds again after each fault",
        f"after {len(costs) - len(never)} of {len(costs)} faults",
        tuple(f"fault {cost.number}, {cost.kind}: did not fold again in time" for cost in never),
    )


def _taken_over(costs: Sequence[Cost], within_s: float) -> Limit:
    taken = [cost for cost in costs if cost.take_over and cost.cost_s is not None]
    return Limit(
        f"others fold a killed worker's partitions within {within_s:g} s",
        _longest([cost.cost_s for cost in taken if cost.cost_s is not None]),
        tuple(
            f"fault {cost.number}, {cost.kind}: others took {cost.cost_s:.1f} s to fold "
            f"the partitions of {cost.target}: expected at most {within_s:g} s"
            for cost in taken
            if cost.cost_s is not None and cost.cost_s > within_s
        ),
    )


def _answered(answers: Answers) -> Limit:
    return Limit(
        f"ingress answers within {answers.within_s:g} s, unless it is killed or frozen",
        f"longest of {answers.judged}: {answers.longest_s:.1f} s" if answers.judged else "",
        tuple(answers.late),
    )


def _stopped(costs: Sequence[Cost], within_s: float) -> Limit:
    broken, times_s = [], []
    for cost in costs:
        for stop in cost.stops:
            times_s.append(stop.took_s)
            # A program can't commit its last offsets while Kafka is down, so it may end uncleanly.
            if stop.took_s > within_s or not (stop.is_clean or cost.kafka_away):
                broken.append(
                    f"fault {cost.number}, {cost.kind}: {stop.program} {stop.how}, "
                    f"{stop.took_s:.1f} s after SIGTERM: expected exit code 0 within {within_s:g} s"
                )
                broken += _last(stop.last_lines)
    return Limit(
        f"SIGTERM ends a program within {within_s:g} s, with exit code 0",
        _longest(times_s),
        tuple(broken),
    )


def _refused(refusals: Sequence[Refusal], within_s: float) -> Limit:
    return Limit(
        f"a program that can't run ends within {within_s:g} s",
        _longest(refusal.took_s for refusal in refusals),
        tuple(
            f"{each.program} ended after {each.took_s:.1f} s during {each.during}: expected an end "
            f"within {within_s:g} s"
            for each in refusals
            if each.took_s > within_s
        ),
    )


def _ended_by_itself(unplanned: Sequence[UnplannedEnd], costs: Sequence[Cost]) -> Limit:
    restarted = {kind.name for kind in KINDS if kind.restarts_broker}
    restarts = sum(cost.kind in restarted for cost in costs)
    broken = []
    for each in unplanned:
        broken.append(f"{each.program} {each.how} during {each.during}:")
        broken += _last(each.last_lines)
    return Limit(
        "no program ends unless a fault ends it",
        f"{len(unplanned)} unplanned ends, {restarts} restarts of brokers",
        tuple(broken),
    )


def _last(lines: Sequence[str]) -> list[str]:
    return [f"  {line[:_SHOWN_CHARS]}" for line in lines[-10:]]


def _longest(times_s: Iterable[float]) -> str:
    times = list(times_s)
    return f"longest of {len(times)}: {max(times):.1f} s" if times else ""
