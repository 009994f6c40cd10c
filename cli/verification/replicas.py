"""The comparison of the workers' disks with the changelogs, for `verify` and `audit`.

Input: the addresses of workers, which report what their disks hold, and the changelogs. Output:
differences, and how much was compared. ``ledger.replicas`` does the comparison itself.

The workers are asked before the changelogs are read. So the changelogs reach the end of each
replica that was reported.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import httpx
import msgspec

from cli.ledger_reader import LedgerReader
from cli.ports import base_url
from cli.printing import Heard, counted
from cli.settings import VerifySettings
from ledger.differences import Difference
from ledger.digest import ChangelogDigest
from ledger.replicas import AllTables, Comparison, Place, Replica, Replicas, stands_still
from runtime.access import Token

# A worker gives the other workers ten seconds to answer.
_ANSWER_WITHIN_S: Final = 15.0
# A replica is compared this often before verify reports that it differs.
_COMPARED_AGAIN: Final = 2
# A worker may restore a large active table for minutes before it follows its standby tables again.
_STANDS_STILL_FOR_S: Final = 600.0


class NoAnswer(msgspec.Struct, frozen=True):
    """No worker reports what the disks hold; ``reason`` says which address failed, and how."""

    reason: str


class Workers:
    """The addresses of workers; the first one that answers reports for all workers."""

    def __init__(self, urls: Sequence[str], token: Token | None) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}

    @classmethod
    def of(cls, settings: VerifySettings, urls: Sequence[str]) -> "Workers":
        """Return the workers at the given addresses, else at the address of the settings."""
        return cls(urls or (base_url(settings.web_bind, settings.web_port),), settings.api_token)

    async def ask(self, *, scrub: bool = False) -> AllTables | NoAnswer:
        """Return what all workers' disks hold; ``scrub`` makes each worker read its disk."""
        path = "/tables?scrub=true" if scrub else "/tables"
        reasons = []
        async with httpx.AsyncClient(
            headers=self._headers, trust_env=False, timeout=_ANSWER_WITHIN_S
        ) as client:
            for url in self._urls:
                answer = await _ask(client, url, path)
                if isinstance(answer, AllTables):
                    return answer
                reasons.append(answer.reason)
        return NoAnswer("; ".join(reasons))


async def _ask(client: httpx.AsyncClient, url: str, path: str) -> AllTables | NoAnswer:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            answer = await client.get(url + path)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        return NoAnswer(f"no worker answers at {url} ({type(error).__name__})")
    if answer.status_code != httpx.codes.OK:
        return NoAnswer(f"{url} answers {answer.status_code} when it is asked for {path}")
    try:
        return msgspec.json.decode(answer.content, type=AllTables)
    except msgspec.DecodeError:
        return NoAnswer(f"{url} is not a worker of this version: {path} has another form there")


class Disks(msgspec.Struct, frozen=True):
    """How many replicas of how many workers were compared, and why others were not."""

    replicas: int = 0
    workers: int = 0
    trouble: str = ""

    def __str__(self) -> str:
        if not self.replicas:
            return f"not compared: {self.trouble}"
        compared = f"{counted(self.replicas, 'partition')} on {counted(self.workers, 'worker')}"
        return f"{compared} compared with the changelogs" + (
            f"; not compared: {self.trouble}" if self.trouble else ""
        )


def disks_of(answer: AllTables | NoAnswer, compared: frozenset[Place]) -> Disks:
    """Summarise one comparison for a person."""
    if isinstance(answer, NoAnswer):
        return Disks(trouble=answer.reason)
    trouble = [f"the worker at {url} does not answer" for url in answer.unreachable]
    if not compared and not trouble:
        trouble = ["the workers that answer hold no table of this ledger"]
    return Disks(len(compared), len({place.worker for place in compared}), "; ".join(trouble))


class DiskCheck:
    """One comparison of all disks, for `verify`: ``begin``, read the changelogs, ``end``."""

    def __init__(self, reader: LedgerReader, workers: Workers | None, heard: Heard) -> None:
        self._reader = reader
        self._workers = workers
        self._heard = heard
        self._replicas = Replicas(reader.names.changelogs)
        self._answer: AllTables | NoAnswer = NoAnswer("no worker was asked")

    async def begin(self) -> None:
        """Ask the workers what their disks hold."""
        if self._workers is not None:
            self._answer = await self._workers.ask()
        if isinstance(self._answer, AllTables):
            self._replicas.expect(self._answer)

    def digest(self, topic: str, partition: int) -> ChangelogDigest | None:
        """Return what takes the records of a partition while it is read; maybe nothing does."""
        wanted = isinstance(self._answer, AllTables)
        return self._replicas.digest(topic, partition) if wanted else None

    async def end(self) -> tuple[Disks, list[Difference]]:
        """Compare, and compare again what differs.

        Between the workers' report and the reading, compaction may have removed a value below the
        end of a replica in favour of a newer value above that end.
        """
        found = self._replicas.compare()
        differing = found.differing
        for _ in range(_COMPARED_AGAIN):
            differing = await self._again(differing)
        return disks_of(self._answer, found.equal | found.differing.keys()), [*differing.values()]

    async def _again(self, differing: Mapping[Place, Difference]) -> dict[Place, Difference]:
        """Return which replicas still differ; without an answer all of them do."""
        if not differing or self._workers is None:
            return {}
        answer = await self._workers.ask()
        if isinstance(answer, NoAnswer):
            return dict(differing)
        replicas, names = Replicas(self._reader.names.changelogs), self._reader.names
        replicas.expect(answer)
        for topic, number in {(names.changelog(p.table), p.partition) for p in differing}:
            digest = replicas.digest(topic, number)
            await self._reader.latest(topic, number, self._heard, digest)
        found = replicas.compare().differing
        return {place: found[place] for place in found.keys() & differing.keys()}


class _Still(NamedTuple):
    """A replica that was behind, and since when its end is the same."""

    replica: Replica
    since_s: float


class DiskWatch:
    """Judges comparison after comparison, for `audit`.

    A replica is reported once it differs in two comparisons in a row, for the reason that
    ``DiskCheck.end`` gives. It stays reported until a comparison finds it equal.
    """

    def __init__(self) -> None:
        self._differing: dict[Place, Difference] = {}
        self._reported: dict[Place, Difference] = {}
        self._behind: dict[Place, _Still] = {}

    def judge(self, found: Comparison, unreachable: Sequence[str], now_s: float) -> None:
        """Take one comparison in; ``unreachable`` workers' replicas stay as they were."""
        before = self._reported
        # The first text is kept: a new one in each round would be a new difference in each round.
        self._reported = {
            place: before.get(place, difference)
            for place, difference in found.differing.items()
            if place in self._differing
        }
        self._behind = {
            place: _still(self._behind.get(place), replica, now_s)
            for place, replica in found.behind.items()
        }
        kept = {p for p in self._differing if p in found.behind or p.worker in unreachable}
        self._differing = {p: self._differing[p] for p in kept} | found.differing
        self._reported |= {place: before[place] for place in kept & before.keys()}
        for place, still in self._behind.items():
            if now_s - still.since_s >= _STANDS_STILL_FOR_S:
                self._reported.setdefault(place, stands_still(place, still.replica))

    @property
    def differences(self) -> list[Difference]:
        """All differences that are known now."""
        return [*self._reported.values()]


def _still(before: _Still | None, replica: Replica, now_s: float) -> _Still:
    if before is not None and before.replica.end == replica.end:
        return before
    return _Still(replica, now_s)
