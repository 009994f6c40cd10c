"""Whom `verify` and `audit` ask about the workers' disks, and when they report a difference."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from cli.settings import VerifySettings
from cli.verification.replicas import Disks, DiskWatch, NoAnswer, Workers, disks_of
from ledger.differences import Difference, Kind
from ledger.replicas import AllTables, Comparison, Place, Replica
from runtime.access import Token

PLACE, OTHER = Place("http://one", "payments", 0), Place("http://two", "payments", 0)
NOBODY = AllTables(workers=[], unreachable=["http://two"])


def replica(end: int) -> Replica:
    return Replica(
        table="payments",
        changelog="c",
        partition=0,
        is_active=False,
        end=end,
        rows=0,
        digest="",
    )


def difference(detail: str = "") -> Difference:
    return Difference(kind=Kind.REPLICA_DIFFERS, subject="it", detail=detail)


def comparison(
    *equal: Place,
    differing: dict[Place, Difference] | None = None,
    behind: dict[Place, Replica] | None = None,
) -> Comparison:
    return Comparison(frozenset(equal), behind or {}, differing or {})


def test_what_differs_once_is_not_reported_and_what_differs_again_is():
    """Compaction may have removed a value below the replica's end between report and reading."""
    watch = DiskWatch()
    watch.judge(comparison(differing={PLACE: difference()}), [], 0)
    assert watch.differences == []
    watch.judge(comparison(PLACE), [], 1)
    watch.judge(comparison(differing={PLACE: difference()}), [], 2)
    assert watch.differences == []
    watch.judge(comparison(differing={PLACE: difference()}), [], 3)
    assert watch.differences == [difference()]


def test_a_reported_difference_keeps_its_text_and_ends_with_a_comparison_that_is_equal():
    watch = DiskWatch()
    for n in range(4):
        watch.judge(comparison(differing={PLACE: difference(f"{n}")}), [], n)
    assert watch.differences == [difference("1")]
    watch.judge(comparison(PLACE), [], 5)
    assert watch.differences == []


@pytest.mark.parametrize(
    ("meanwhile", "unreachable"),
    [(comparison(behind={PLACE: replica(1)}), []), (comparison(), ["http://one"])],
    ids=["behind", "unreachable"],
)
def test_a_reported_difference_stays_while_the_replica_can_not_be_compared(meanwhile, unreachable):
    watch = DiskWatch()
    for n in range(2):
        watch.judge(comparison(differing={PLACE: difference()}), [], n)
    for n in range(2, 5):
        watch.judge(meanwhile, unreachable, n)
        assert watch.differences == [difference()]
    watch.judge(comparison(), [], 6)
    assert watch.differences == []


def test_a_replica_that_is_behind_is_reported_once_it_stands_still_for_ten_minutes():
    watch = DiskWatch()
    for n in range(200):
        # It moves on, and is behind at every comparison: it is a slow one.
        watch.judge(comparison(behind={PLACE: replica(n)}), [], 10 * n)
        assert watch.differences == []
    for now_s in (2000, 2100, 2599):
        watch.judge(comparison(behind={PLACE: replica(200)}), [], now_s)
        assert watch.differences == []
    watch.judge(comparison(behind={PLACE: replica(200)}), [], 2600)
    (found,) = watch.differences
    assert found.kind == Kind.REPLICA_BEHIND
    watch.judge(comparison(PLACE), [], 2601)
    assert watch.differences == []


def test_the_workers_at_the_options_else_at_the_settings_are_asked():
    settings = VerifySettings.from_environment(
        {"LEDGER_ALLOW_UNSIGNED": "true", "LEDGER_WEB_BIND": "0.0.0.0", "LEDGER_WEB_PORT": "6070"}  # noqa: S104
    )
    assert Workers.of(settings, ())._urls == ["http://127.0.0.1:6070"]
    assert Workers.of(settings, ("http://a/", "http://b"))._urls == ["http://a", "http://b"]


@asynccontextmanager
async def answering(
    body: bytes, status: int = 200, asked: list[bytes] | None = None
) -> AsyncIterator[str]:
    """Serve one answer to every request."""

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


async def test_the_first_worker_that_answers_reports_for_all_and_the_token_is_sent():
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


async def test_without_an_answer_the_reason_names_each_address_and_not_the_token():
    token = Token("a token of the test")
    async with answering(b"", 401) as refuses, answering(b"{}") as another:
        answer = await Workers(["http://127.0.0.1:1", refuses, another], token).ask()
    assert isinstance(answer, NoAnswer)
    for text in (
        "no worker answers at http://127.0.0.1:1 (ConnectError)",
        f"{refuses} answers 401 when it is asked for /tables",
        f"{another} is not a worker of this version",
    ):
        assert text in answer.reason
    assert token.reveal() not in answer.reason


def test_what_was_compared_and_what_was_not_is_one_line():
    compared = frozenset({PLACE, OTHER, Place("http://one", "orders", 1)})
    whole = AllTables(workers=[], unreachable=[])
    assert str(disks_of(whole, compared)) == (
        "3 partitions on 2 workers compared with the changelogs"
    )
    assert str(disks_of(NOBODY, frozenset({PLACE}))) == (
        "1 partition on 1 worker compared with the changelogs; "
        "not compared: the worker at http://two does not answer"
    )
    assert str(disks_of(NoAnswer("nobody"), frozenset())) == "not compared: nobody"
    assert str(disks_of(whole, frozenset())) == (
        "not compared: the workers that answer hold no table of this ledger"
    )
    assert Disks().replicas == 0
