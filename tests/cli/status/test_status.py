"""`status` does not report new records as a lag, and prints the state as text or JSON."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import pytest
from rich.console import Console

from cli.errors import NotReadError
from cli.run.command import plan
from cli.settings import StatusSettings
from cli.status import looks
from cli.status.command import Behind, StatusOptions, addresses, encode, render
from cli.status.looks import HopLag, Look, ProgramStatus, StatusProblem, numbers_of
from cli.topics.lag import PartitionLag, TopicMissingError, summed
from ingest.metrics import IngressMetrics, ProcessCounts, new_rows
from processors.metrics import WorkerMetrics
from runtime.fault import Fault
from runtime.kafka.topic_looks import Examination, TopicsError


def hop(committed: int, end: int, partition: int = 0) -> list[HopLag]:
    at = PartitionLag(partition, 0, committed, end)
    return [HopLag("dedupe", "plexy.webhooks", at.records, [at])]


def shown(look: Look) -> str:
    console = Console(width=120, record=True, file=None, force_terminal=False, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(render(look))
    return captured.get()


def test_without_options_status_uses_the_same_addresses_as_the_command_run():
    planned = plan({})
    ingest, worker = addresses(StatusSettings.from_environment({}), StatusOptions())
    assert planned.webhook_url.startswith(f"{ingest.url}/")
    assert worker.url == planned.views_url
    assert (ingest.metrics_url, worker.metrics_url) == planned.metrics_urls


def test_an_option_overrides_the_settings_and_only_workers_get_the_token():
    settings = StatusSettings.from_environment({"LEDGER_API_TOKEN": "token of the test"})
    options = StatusOptions("http://i:1/", "http://m:2/metrics", ("http://w:3", "http://w:4/"))
    ingest, *workers = addresses(settings, options)
    assert (ingest.url, ingest.metrics_url, ingest.token) == (
        "http://i:1",
        "http://m:2/metrics",
        "",
    )
    assert [(each.url, each.token) for each in workers] == [
        ("http://w:3", "token of the test"),
        ("http://w:4", "token of the test"),
    ]


def test_new_records_are_not_reported_as_behind():
    behind = Behind(5)
    assert behind.judge(hop(0, 10), now_s=0) == ([], True)
    assert behind.judge(hop(9, 15), now_s=3) == ([], True)
    # The first records are folded, and the other records are new.
    assert behind.judge(hop(12, 20), now_s=9) == ([], False)


def test_records_are_reported_as_behind_after_the_delay_until_they_are_folded():
    behind = Behind(5)
    assert behind.judge(hop(4, 10), now_s=0) == ([], True)
    assert behind.judge(hop(4, 12), now_s=4.9) == ([], True)
    (problem,), _ = behind.judge(hop(9, 12), now_s=5)
    assert (problem.code, problem.subject) == ("behind", "dedupe")
    assert problem.detail.startswith("plexy.webhooks partition 0 has 3 records that the workers")
    assert behind.judge(hop(10, 12), now_s=6) == ([], False)


def test_a_partition_without_a_lag_needs_no_second_look():
    assert Behind(5).judge(hop(10, 10), now_s=0) == ([], False)


def test_each_partition_is_judged_separately():
    behind = Behind(1)
    behind.judge(hop(0, 5, partition=0) + hop(0, 5, partition=1), now_s=0)
    problems, _ = behind.judge(hop(5, 9, partition=0) + hop(0, 5, partition=1), now_s=2)
    assert ["partition 1" in each.detail for each in problems] == [True]


def test_the_lag_of_a_partition_that_has_no_commit_is_the_number_of_its_records():
    partitions = [PartitionLag(0, 0, 0, 7), PartitionLag(1, 3, 5, 9), PartitionLag(2, 4, 4, 2)]
    assert [each.records for each in partitions] == [7, 4, 0]
    assert summed("t", partitions) == ("t", 2, 13)


def test_the_numbers_of_a_worker_come_from_its_metrics():
    metrics = WorkerMetrics()
    metrics.judged({"folded": 4, "duplicate": 2, "rejected.id_missing": 1})
    for partition, age_s in enumerate((0.0, 7.5, 3.0)):
        metrics.lag_seconds.labels("orders", str(partition)).set(age_s)
    metrics.partitions.labels("active").set(3)
    # The estimated number of keys is not among the returned numbers.
    metrics.table_keys.labels("payments").set(12)
    numbers = numbers_of(metrics.page().decode())
    expected = {"folded": 4, "duplicate": 2, "rejected": 1, "lag_seconds": 7.5, "active": 3}
    assert {name: number for name, number in numbers.items() if number} == expected


def test_the_numbers_of_an_ingress_are_sums_of_all_its_processes():
    rows = new_rows(2)
    for row in rows:
        ProcessCounts(row).delivered("sdk", "accepted", 0.1, 5)
    numbers = numbers_of(IngressMetrics(rows, 9).page().decode())
    assert {name: number for name, number in numbers.items() if number} == {"accepted": 2}


def test_the_json_has_every_lag_and_program_and_problem_and_says_whether_all_is_well():
    problem = StatusProblem("not_ready", "worker http://w", "recovering")
    program = ProgramStatus("worker", "http://w", ready=False, numbers=None)
    document = json.loads(encode(Look(hop(4, 10), [program], [problem])))
    assert document == {
        "well": False,
        "hops": [
            {
                "hop": "dedupe",
                "topic": "plexy.webhooks",
                "lag_records": 6,
                "partitions": [
                    {
                        "partition": 0,
                        "begin": 0,
                        "committed": 4,
                        "end": 10,
                        "deleted": 0,
                        "lag_records": 6,
                    }
                ],
            }
        ],
        "programs": [{"name": "worker", "url": "http://w", "ready": False, "numbers": None}],
        "problems": [{"code": "not_ready", "subject": "worker http://w", "detail": "recovering"}],
    }


def test_the_text_has_the_same_content_as_the_json_and_no_control_characters():
    program = ProgramStatus(
        "worker", "http://w", ready=True, numbers={"folded": 12_000.0, "zero": 0}
    )
    text = shown(Look(hop(4, 10), [program], [StatusProblem("behind", "dedupe", "a\x1b[2Jb")]))
    assert "0: 6" in text
    assert "folded 12,000" in text
    assert "zero" not in text
    assert "\x1b[2J" not in text
    assert "all is well" not in text
    assert "all is well" in shown(Look(hop(10, 10), [program], []))


@pytest.mark.parametrize(
    ("error", "codes"),
    [
        (TopicMissingError(Fault("there is no topic x")), ["topic_missing"]),
        (TopicsError(Fault("Kafka does not answer")), ["kafka_unavailable"]),
        (NotReadError("the records do not come"), None),
    ],
)
async def test_only_a_missing_topic_is_reported_as_missing(monkeypatch, error, codes):
    async def fails(*_: object) -> None:
        raise error

    @asynccontextmanager
    async def connected(_: object) -> AsyncIterator[tuple[None, None]]:
        yield None, None

    monkeypatch.setattr(looks, "examine_topics", AsyncMock(return_value=Examination()))
    monkeypatch.setattr(looks, "clients", connected)
    monkeypatch.setattr(looks, "lags", fails)
    look = looks.look(StatusSettings.from_environment({}), [])
    if codes is None:
        with pytest.raises(NotReadError):
            await look
    else:
        assert [problem.code for problem in (await look).problems] == codes
