"""Compares the workers' disks with the changelogs, for `verify` and `audit`.

A *replica* is one partition of a table on one worker's disk. The workers report the content of
their disks, and ``ledger.verification.replicas`` compares the reports with the changelogs. The
workers are asked before the changelogs are read, so that each changelog is read at least up to the
end offset of its replicas.
"""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import httpx
import msgspec
from msgspec.structs import replace

from cli.ports import base_url
from cli.printing import Heard, counted
from cli.settings import VerifySettings
from cli.topics.ledger_reader import LedgerReader
from ledger.digest import ChangelogDigest
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.replicas import AllTables, Comparison, ReplicaPlace, Replicas, places
from runtime.access import Token

# The worker that reports waits up to ten seconds for the answers of the other workers.
_ANSWER_WITHIN_S: Final = 15.0
# A worker without records to fold reads a million rows in about ten seconds.
_READ_WITHIN_S: Final = 30.0
_ASKED_EVERY_S: Final = 0.5
# A replica that differs is compared this many more times before verify reports the difference.
_COMPARED_AGAIN: Final = 2


class NoReport(msgspec.Struct, frozen=True):
    """No worker reports the disks' content; ``reason`` names each address with its failure."""

    reason: str


class Workers:
    """The addresses of workers; the first worker that answers reports for all workers."""

    def __init__(self, urls: Sequence[str], token: Token | None) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}

    @classmethod
    def of(cls, settings: VerifySettings, urls: Sequence[str]) -> "Workers":
        """Return the workers at these addresses; the default is the address in the settings."""
        return cls(urls or (base_url(settings.web_bind, settings.web_port),), settings.api_token)

    async def ask(self, *, scrub: bool = False) -> AllTables | NoReport:
        """Return the content of all workers' disks; ``scrub`` makes each worker read its disk."""
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
        return NoReport("; ".join(reasons))

    async def ask_after_scrub(self) -> AllTables | NoReport:
        """Make the workers read (scrub) their disks, and return the content of the disks.

        A worker knows the digest of a standby replica only from the last scrub of that replica. If
        a replica was not read within half a minute, it is returned without a digest.
        """
        before = await self.ask(scrub=True)
        deadline = time.monotonic() + _READ_WITHIN_S
        while isinstance(before, AllTables):
            now = await self.ask()
            if isinstance(now, NoReport) or not (unread := _unread(before, now)):
                return now
            if time.monotonic() > deadline:
                return without_digests(now, unread)
            await asyncio.sleep(_ASKED_EVERY_S)
        return before


def _unread(before: AllTables, now: AllTables) -> list[ReplicaPlace]:
    """Return the replicas that have no digest, and the standby replicas that have no new scrub."""
    earlier = {place: replica.scrubbed_at_ms for place, replica in places(before).items()}
    return [
        place
        for place, replica in places(now).items()
        if replica.digest is None
        or (not replica.is_active and replica.scrubbed_at_ms == earlier.get(place))
    ]


def without_digests(tables: AllTables, unread: Collection[ReplicaPlace]) -> AllTables:
    """Return a report that has no digests for ``unread``, so that these are not compared."""
    return AllTables(
        workers=[
            replace(
                each,
                replicas=[
                    replace(replica, digest=None)
                    if ReplicaPlace(each.worker, replica.table, replica.partition) in unread
                    else replica
                    for replica in each.replicas
                ],
            )
            for each in tables.workers
        ],
        unreachable=tables.unreachable,
    )


async def _ask(client: httpx.AsyncClient, url: str, path: str) -> AllTables | NoReport:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            answer = await client.get(url + path)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        return NoReport(f"no worker answers at {url} ({type(error).__name__})")
    if answer.status_code != httpx.codes.OK:
        return NoReport(f"{url} answers {answer.status_code} when it is asked for {path}")
    try:
        return msgspec.json.decode(answer.content, type=AllTables)
    except msgspec.DecodeError:
        return NoReport(f"{url} is not a worker of this version: its {path} has a different form")


class Disks(msgspec.Struct, frozen=True):
    """The numbers of compared replicas and workers, and why other replicas were left out."""

    replicas: int = 0
    workers: int = 0
    unread: int = 0
    trouble: str = ""

    def __str__(self) -> str:
        unread = f"{counted(self.unread, 'partition')} not read from disk yet"
        lacking = "; ".join(filter(None, [unread if self.unread else "", self.trouble]))
        if not self.replicas:
            return f"not compared: {lacking}"
        compared = f"{counted(self.replicas, 'partition')} on {counted(self.workers, 'worker')}"
        summary = f"{compared} compared with the changelogs"
        return f"{summary}; not compared: {lacking}" if lacking else summary


def disks_of(answer: AllTables | NoReport, found: Comparison) -> Disks:
    """Summarise one comparison."""
    if isinstance(answer, NoReport):
        return Disks(trouble=answer.reason)
    compared = found.equal | found.differing.keys()
    trouble = [f"the worker at {url} does not answer" for url in answer.unreachable]
    if not compared and not found.open and not trouble:
        trouble = ["the workers that answer hold no table of this ledger"]
    workers = len({place.worker for place in compared})
    return Disks(len(compared), workers, len(found.open), "; ".join(trouble))


NOTHING_COMPARED: Final = Comparison(frozenset(), frozenset(), {})


class DiskCheck:
    """One comparison of all disks, for `verify`: ``begin``, read the changelogs, ``end``."""

    def __init__(self, reader: LedgerReader, workers: Workers | None, heard: Heard) -> None:
        self._reader = reader
        self._workers = workers
        self._heard = heard
        self._replicas = Replicas(reader.names.changelogs)
        self._answer: AllTables | NoReport = NoReport("no worker was asked")

    async def begin(self) -> None:
        """Ask the workers for the content of their disks."""
        if self._workers is not None:
            self._answer = await self._workers.ask_after_scrub()

    def digest(self, topic: str, partition: int) -> ChangelogDigest | None:
        """Return the digest to feed with a partition's records, if the partition is compared."""
        wanted = isinstance(self._answer, AllTables)
        return self._replicas.digest(topic, partition) if wanted else None

    async def end(self) -> tuple[Disks, list[Difference]]:
        """Compare all replicas, and then compare the differing replicas again.

        A correct replica may differ from its changelog. After the workers' report, compaction may
        remove a value below the replica's end, because the changelog has a newer value above that
        end. Then the later reading of the changelog does not find the value that the replica has.
        """
        if isinstance(self._answer, NoReport):
            return disks_of(self._answer, NOTHING_COMPARED), []
        found = self._replicas.compare(self._answer)
        differing = found.differing
        for _ in range(_COMPARED_AGAIN):
            differing = await self._again(differing)
        return disks_of(self._answer, found), [*differing.values()]

    async def _again(
        self, differing: Mapping[ReplicaPlace, Difference]
    ) -> dict[ReplicaPlace, Difference]:
        """Return the replicas that still differ; if no worker answers, return all ``differing``."""
        if not differing or self._workers is None:
            return {}
        answer = await self._workers.ask_after_scrub()
        if isinstance(answer, NoReport):
            return dict(differing)
        replicas, names = Replicas(self._reader.names.changelogs), self._reader.names
        for topic, number in {(names.changelog(p.table), p.partition) for p in differing}:
            digest = replicas.digest(topic, number)
            await self._reader.latest(topic, number, self._heard, digest)
        found = replicas.compare(answer).differing
        return {place: found[place] for place in found.keys() & differing.keys()}


class DiskWatch:
    """Judges a series of comparisons, for `audit`.

    A replica is reported only after it has differed in two comparisons in a row; ``DiskCheck.end``
    explains why. It stays reported until a comparison finds it equal.
    """

    def __init__(self) -> None:
        self._differing: dict[ReplicaPlace, Difference] = {}
        self._reported: dict[ReplicaPlace, Difference] = {}

    def judge(self, found: Comparison, unreachable: Sequence[str]) -> None:
        """Add one comparison; the replicas of ``unreachable`` workers stay as they were."""
        kept = {p for p in self._differing if p in found.open or p.worker in unreachable}
        # A difference keeps its first text, because with a new text it would count as a new
        # difference.
        self._reported = {
            place: self._reported.get(place, difference)
            for place, difference in self._differing.items()
            if place in found.differing or (place in kept and place in self._reported)
        }
        self._differing = {place: self._differing[place] for place in kept} | found.differing

    @property
    def differences(self) -> list[Difference]:
        """All differences that are currently reported."""
        return [*self._reported.values()]


def damages(tables: AllTables, since_ms: int) -> Iterator[Difference]:
    """Yield the damage that workers have found on their own disks since ``since_ms``."""
    for each in tables.workers:
        for damage in each.damages:
            if damage.found_at_ms >= since_ms:
                at = datetime.fromtimestamp(damage.found_at_ms // 1000, UTC)
                yield Difference(
                    kind=DifferenceKind.REPLICA_DAMAGED,
                    subject=str(ReplicaPlace(each.worker, damage.table, damage.partition)),
                    detail=f"found at {at:%H:%M:%S} UTC: {damage.detail}. The worker deleted the "
                    "partition's files and restores them from the changelog: check the disk",
                )
