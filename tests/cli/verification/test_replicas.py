"""`verify` and `audit` compare the tables on all disks, and report only repeated differences."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from cli.settings import VerifySettings
from cli.verification.replicas import Disks, DiskWatch, NoReport, Workers, damages, disks_of
from ledger.digest import Damage
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.replicas import (
    AllTables,
    Comparison,
    Replica,
    ReplicaPlace,
    WorkerTables,
)
from runtime.access import Token

PLACE, OTHER = ReplicaPlace("http://one", "payments", 0), ReplicaPlace("http://two", "payments", 0)
NOBODY = AllTables(workers=[], unreachable=["http://two"])


def standby(scrubbed_at_ms: int | None) -> AllTables:
    """Return the report of a worker that last read its disk at `scrubbed_at_ms`."""
    replica = Replica(
        table="payments",
        changelog="c",
        partition=0,
        is_active=False,
        end=7,
        rows=0,
        digest=None if scrubbed_at_ms is None else "0",
        scrubbed_at_ms=scrubbed_at_ms,
    )
    worker = WorkerTables(worker="http://one", replicas=[replica], damages=[])
    return AllTables(workers=[worker], unreachable=[])


def difference(detail: str = "") -> Difference:
    return Difference(kind=DifferenceKind.REPLICA_DIFFERS, subject="it", detail=detail)


def comparison(
    *equal: ReplicaPlace,
    differing: dict[ReplicaPlace, Difference] | None = None,
    left_open: ReplicaPlace | None = None,
) -> Comparison:
    return Comparison(frozenset(equal), frozenset({left_open} - {None}), differing or {})


def test_only_a_difference_found_twice_in_a_row_is_reported():
    """A compaction of the changelog after the worker's report may cause a single difference."""
    watch = DiskWatch()
    watch.judge(comparison(differing={PLACE: difference()}), [])
    assert watch.differences == []
    watch.judge(comparison(PLACE), [])
    watch.judge(comparison(differing={PLACE: difference()}), [])
    assert watch.differences == []
    watch.judge(comparison(differing={PLACE: difference()}), [])
    assert watch.differences == [difference()]


def test_a_reported_difference_keeps_its_text_until_a_comparison_finds_no_difference():
    watch = DiskWatch()
    for n in range(4):
        watch.judge(comparison(differing={PLACE: difference(f"{n}")}), [])
    assert watch.differences == [difference("0")]
    watch.judge(comparison(PLACE), [])
    assert watch.differences == []


@pytest.mark.parametrize(
    ("meanwhile", "unreachable"),
    [(comparison(left_open=PLACE), []), (comparison(), ["http://one"])],
    ids=["open", "unreachable"],
)
def test_a_reported_difference_stays_while_the_replica_cannot_be_compared(meanwhile, unreachable):
    watch = DiskWatch()
    for _ in range(2):
        watch.judge(comparison(differing={PLACE: difference()}), [])
    for _ in range(3):
        watch.judge(meanwhile, unreachable)
        assert watch.differences == [difference()]
    watch.judge(comparison(), [])
    assert watch.differences == []


def test_the_workers_addresses_come_from_the_options_or_else_from_the_settings():
    settings = VerifySettings.from_environment(
        {"LEDGER_ALLOW_UNSIGNED": "true", "LEDGER_WEB_BIND": "0.0.0.0", "LEDGER_WEB_PORT": "6070"}  # noqa: S104
    )
    assert Workers.of(settings, ())._urls == ["http://127.0.0.1:6070"]
    assert Workers.of(settings, ("http://a/", "http://b"))._urls == ["http://a", "http://b"]


@asynccontextmanager
async def answering(
    body: bytes, status: int = 200, asked: list[bytes] | None = None
) -> AsyncIterator[str]:
    """Serve the same answer to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_first_worker_that_answers_reports_for_all_workers_and_receives_the_token():
    asked: list[bytes] = []
    token = Token("a token of the test")
    async with (
        answering(b"", 401) as refuses,
        answering(b"{}") as another,
        answering(msgspec.json.encode(NOBODY), asked=asked) as worker,
    ):
        workers = Workers(["http://127.0.0.1:1", refuses, another, worker], token)
        assert await workers.ask() == NOBODY
        assert await workers.ask(scrub=True) == NOBODY
    first, second = (request.decode() for request in asked)
    assert first.startswith("GET /tables HTTP/1.1\r\n")
    assert second.startswith("GET /tables?scrub=true HTTP/1.1\r\n")
    assert "authorization: bearer a token of the test" in first.lower()


async def test_if_there_is_no_report_the_reason_names_each_address_but_not_the_token():
    token = Token("a token of the test")
    async with answering(b"", 401) as refuses, answering(b"{}") as another:
        answer = await Workers(["http://127.0.0.1:1", refuses, another], token).ask()
    assert isinstance(answer, NoReport)
    for text in (
        "no worker answers at http://127.0.0.1:1 (ConnectError)",
        f"{refuses} answers 401 when it is asked for /tables",
        f"{another} is not a worker of this version",
    ):
        assert text in answer.reason
    assert token.reveal() not in answer.reason


async def test_verify_waits_until_the_disks_have_been_read_again(monkeypatch):
    reports = [standby(1), standby(1), standby(None), standby(2), standby(3)]
    scrubs = []

    async def ask(_self: Workers, *, scrub: bool = False) -> AllTables:
        scrubs.append(scrub)
        return reports[len(scrubs) - 1]

    async def at_once(_seconds: float) -> None:
        pass

    monkeypatch.setattr(Workers, "ask", ask)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    assert await Workers([], None).ask_after_scrub() == standby(2)
    assert scrubs == [True, False, False, False]


async def test_a_disk_that_is_not_read_within_the_limit_cannot_be_compared(monkeypatch):
    async def ask(_self: Workers, **_options: bool) -> AllTables:
        return standby(1)

    monkeypatch.setattr(Workers, "ask", ask)
    monkeypatch.setattr("cli.verification.replicas._READ_WITHIN_S", 0.0)
    report = await Workers([], None).ask_after_scrub()
    assert [each.digest for each in report.workers[0].replicas] == [None]


def test_one_line_counts_the_compared_and_the_skipped_replicas():
    whole = AllTables(workers=[], unreachable=[])
    three = comparison(PLACE, OTHER, ReplicaPlace("http://one", "orders", 1))
    assert str(disks_of(whole, three)) == "3 partitions on 2 workers compared with the changelogs"
    assert str(disks_of(NOBODY, comparison(differing={PLACE: difference()}, left_open=OTHER))) == (
        "1 partition on 1 worker compared with the changelogs; not compared: "
        "1 partition not read from disk yet; the worker at http://two does not answer"
    )
    assert str(disks_of(NoReport("nobody"), comparison())) == "not compared: nobody"
    assert str(disks_of(whole, comparison())) == (
        "not compared: the workers that answer hold no table of this ledger"
    )
    assert Disks().replicas == 0


def test_only_damage_found_after_the_given_time_is_reported():
    damaged = [
        Damage(table="orders", partition=2, found_at_ms=at, detail=f"it holds {at}")
        for at in (1000, 3_600_000)
    ]
    worker = WorkerTables(worker="http://one", replicas=[], damages=damaged)
    (found,) = damages(AllTables(workers=[worker], unreachable=[]), 1001)
    assert found.kind == DifferenceKind.REPLICA_DAMAGED
    assert found.subject == "partition 2 of the table orders on http://one"
    assert found.detail.startswith("found at 01:00:00 UTC: it holds 3600000. ")
