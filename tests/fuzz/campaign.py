"""Sends requests drawn from a seed, then carries out every attack, and measures the target.

Input: a target. Output: the number of requests, the time, the memory, and the answers to honest
deliveries. An undocumented or wrong answer is an error that names the seed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.answers import Answer, UndocumentedError, answers_in
from tests.fuzz.attacks import ATTACKS, Attack, carry_out
from tests.fuzz.honest import Fared, honest_deliveries
from tests.fuzz.inputs import Case, draw
from tests.fuzz.target import Target

_SENDERS = 16


class Figures(NamedTuple):
    """The figures of one part of the campaign."""

    name: str
    inputs: int
    seconds: float
    memory_mb: int
    honest: int
    refused: Counter[str]
    median_ms: float
    p99_ms: float


async def send_inputs(
    target: Target, count: int, seed: int, tell: Callable[[int], None] = lambda _: None
) -> tuple[Figures, Counter[str]]:
    """Send ``count`` requests, each on its own connection or pipelined with a few others."""
    outcomes: Counter[str] = Counter()

    async def sender(number: int) -> None:
        rng = Random(f"{seed}/{number}")  # noqa: S311 - must be reproducible
        for _ in range(number, count, _SENDERS):
            case = draw(rng)
            for outcome in await _judge(target, case, seed, half_close=rng.random() < 0.05):
                outcomes[outcome] += 1
            tell(1)

    began = time.monotonic()
    async with honest_deliveries(target.port) as honest:
        await all_or_first_error([sender(number) for number in range(_SENDERS)])
    return _figures("requests", target, count, began, honest), outcomes


async def all_or_first_error(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all coroutines; the first error cancels the other coroutines, and is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _judge(target: Target, case: Case, seed: int, *, half_close: bool) -> list[str]:
    raw = case.raw
    try:
        # Ingress answers an incomplete request only after a time limit, or never. Don't wait long.
        within_s = 4 if case.ends else 30
        received = await target.exchange(raw, half_close=half_close, within_s=within_s)
        answers = answers_in(received)
        _check(case, answers, half_close=half_close)
    except UndocumentedError as error:
        start, end = raw[:300], raw[-100:]
        raise UndocumentedError(
            f"seed {seed}, {case.name}: {error}\n{start!r} … {end!r}"
        ) from error
    except OSError as error:
        if not (case.ends or half_close):
            raise UndocumentedError(f"seed {seed}, {case.name}: {error!r}") from error
        return [f"{case.name} reset"]
    return [f"{case.name} {answer.status} {answer.code}".strip() for answer in answers] or [
        f"{case.name} closed"
    ]


def _check(case: Case, answers: list[Answer], *, half_close: bool) -> None:
    if not answers and not (case.ends or half_close):
        raise UndocumentedError("no answer")
    for answer in answers:
        if case.codes and answer.code not in case.codes:
            raise UndocumentedError(f"expected one of {sorted(case.codes)}, got {answer}")


async def attack(target: Target, kind: Attack, seconds: float) -> Figures:
    """Carry out one attack during honest deliveries."""
    began = time.monotonic()
    async with honest_deliveries(target.port) as honest:
        count = await carry_out(kind, target, seconds)
    return _figures(kind.name, target, count, began, honest)


async def attack_in_every_way(
    target: Target, seconds: float, tell: Callable[[Figures], None]
) -> list[Figures]:
    """Carry out every attack, one after another."""
    found = []
    for kind in ATTACKS:
        figures = await attack(target, kind, seconds)
        tell(figures)
        found.append(figures)
    return found


def _figures(name: str, target: Target, count: int, began: float, honest: Fared) -> Figures:
    median, p99 = honest.percentile_ms(0.5), honest.percentile_ms(0.99)
    refused = Counter(honest.refused)
    seconds = time.monotonic() - began
    memory = target.memory_mb("VmHWM")
    return Figures(name, count, seconds, memory, len(honest.took_s), refused, median, p99)
