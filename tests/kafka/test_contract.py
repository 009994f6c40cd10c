"""The published topics match their schemas, and the example consumer and kcat can read them.

All tests share one ledger. It receives the deliveries of `simulate`, the deliveries of the demo,
and broken bodies over HTTP. The first worker has a wrong setting: in a refund, it also reads the
payment's id from a field that all other programs ignore. One refund has a text in this field that
is too long for an id, so the first worker rejects this refund. All other programs accept it, so
`rejected retry` puts it back.
"""

import asyncio
import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from cli.demo import sample
from cli.kafka.broker import EmbeddedKafka
from cli.run.local import running
from cli.run.programs import Command
from cli.send import deliver, encode, signed_headers
from cli.simulate.schedule import deliveries
from ledger.wire import ENTRIES, ORDER_DOCUMENTS
from runtime.kafka.reading import clients
from runtime.kafka.topics import TopicSettings, ensure_topics
from runtime.rules import RuleSettings
from tests.cli.contract.validation import texts, writer
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    event,
    free_port,
    latest,
    names_of,
    read_topic,
    run,
    until,
    wait_folded,
)

# The first test waits for a broker, an ingress and a worker, and posts about 500 deliveries.
pytestmark = pytest.mark.timeout(480)

SECRET = "whsec_test_key_now"
ROOT = Path(__file__).parents[2]
CONSUMER = ROOT / "examples" / "consumer.py"
PAGE = (ROOT / "docs" / "events" / "README.md").read_text()

# Only the first worker reads this field. One refund has a text in this field that is too long.
WRONG_NAME = "wrongReference"
PAYMENT_FIELDS = ",".join([WRONG_NAME, *RuleSettings().payment_fields])
TOO_LONG = encode(
    event(1, id="re_1", payment_id="pay_1", **{WRONG_NAME: "x" * 600})
    | {"type": "refund.succeeded"}
)

BROKEN = [
    b"",
    b"not JSON",
    b"\xff\xfe",
    b'{"id":"evt_no_data","type":"payment.succeeded","created":1}',
    encode(event(2, amount="5") | {"id": "evt_text"}),
    encode(event(2, amount=-5) | {"id": "evt_negative"}),
    encode(event(2, amount=2**60) | {"id": "evt_large"}),
    encode(event(2, currency=None) | {"id": "evt_no_currency"}),
    encode(event(2, id=7) | {"id": "evt_number"}),
    encode(event(2) | {"id": "evt_\n"}),
    encode(event(2, id="pay_\0") | {"id": "evt_control"}),
]


def bodies() -> list[tuple[bytes, dict[str, str]]]:
    """Return the bodies to post, each with its headers."""
    raws = [each.body for each in deliveries(7, 400)]
    raws += [each.raw for each in sample.deliveries() if each.signature == "good"]
    raws += [TOO_LONG, *BROKEN]
    return [(raw, signed_headers(raw, SECRET)) for raw in raws]


@pytest.fixture(scope="module")
def ledger(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Yield a worker that has folded everything, and whose settings the other programs share."""
    folder = tmp_path_factory.mktemp("contract")
    env = environment(
        kafka.bootstrap, folder, ingest_port=free_port(), webhook_secrets=SECRET, data_dir=folder
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    with running([(Command("ingest", env), f"{url}/readyz")]):
        with WorkerProcess(env | {"LEDGER_PAYMENT_FIELDS": PAYMENT_FIELDS}) as worker:
            worker.wait_ready(90)
            with httpx.Client(trust_env=False) as client:
                for raw, headers in bodies():
                    answer = deliver(client, f"{url}/webhooks/plexy", raw, headers)
                    assert answer.status in {200, 400}, answer
            wait_folded(env, worker)
            worker.stop()
        with WorkerProcess(env) as worker:
            worker.wait_ready(90)
            _, output = run(env, "rejected", "retry", "--reason", "reference_too_long")
            assert "put back   " in output, output
            wait_folded(env, worker)
            yield worker


@pytest.fixture(scope="module")
def orders(ledger: WorkerProcess) -> list[Any]:
    return read_topic(ledger.env, names_of(ledger.env).orders)


@pytest.fixture(scope="module")
def entries(ledger: WorkerProcess) -> list[Any]:
    return read_topic(ledger.env, names_of(ledger.env).entries)


@pytest.fixture(scope="module")
def rejected(ledger: WorkerProcess) -> list[Any]:
    return read_topic(ledger.env, names_of(ledger.env).rejected)


def test_every_order_document_matches_its_schema_and_contains_its_key(orders):
    validator, statuses, tombstones = writer("ledger.orders"), set(), 0
    for record in orders:
        assert not record.headers
        if record.value is None:
            tombstones += 1
            continue
        document = json.loads(record.value)
        validator.validate(document)
        assert document["order_id"].encode() == record.key
        assert document["version"] == sum(len(p["events"]) for p in document["payments"])
        assert ORDER_DOCUMENTS.encode(ORDER_DOCUMENTS.decode(record.value)) == record.value
        statuses.add(document["status"])
    assert tombstones
    paid = {"over_refunded", "refunded", "partially_refunded", "paid"}
    assert statuses == {*paid, "failed", "unknown"}


def test_every_entry_matches_its_schema_and_balances_and_contains_its_key(entries):
    validator = writer("ledger.entries")
    for record in entries:
        assert not record.headers
        entry = json.loads(record.value)
        validator.validate(entry)
        assert entry["entry_id"].encode() == record.key
        sums: Counter[str] = Counter()
        for posting in entry["postings"]:
            sums[posting["currency"]] += posting["amount"]
        assert not any(sums.values())
        assert ENTRIES.encode(ENTRIES.decode(record.value)) == record.value
    known = {record.key.decode() for record in entries}
    reversals = [
        e["reverses"] for e in map(json.loads, (r.value for r in entries)) if e["reverses"]
    ]
    assert reversals
    assert known.issuperset(reversals)


def event_id(body: bytes) -> bytes | None:
    try:
        return str(json.loads(body)["id"]).encode()
    except (ValueError, KeyError):
        return None


def test_the_headers_of_every_rejection_match_their_schema(rejected):
    validator, reasons, sources, put_back = writer("plexy.rejected"), set(), set(), 0
    for record in rejected:
        headers = texts(record.headers)
        validator.validate(headers)
        reasons.add(headers.get("reason"))
        sources.add(headers["source-topic"].rpartition(".")[2])
        if "corrected" in headers:
            # This record only marks a rejection as corrected, so it has no body.
            assert record.value == b""
            continue
        put_back += "put-back-to" in headers
        assert record.key in {sha256(record.value).hexdigest().encode(), event_id(record.value)}
    assert put_back == 1
    assert sources == {"http", "webhooks"}
    assert reasons >= {
        "control_characters",
        "invalid_envelope",
        "event_id_reused",
        "amount_negative",
    }


def test_each_record_is_in_the_partition_that_kafka_chooses_for_its_key(orders, entries, rejected):
    for record in [*orders, *entries, *rejected]:
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS


# These tests run the example consumer.


def consumer(
    ledger: WorkerProcess, database: Path, *more: str, group: str = ""
) -> subprocess.Popen[str]:
    names, bootstrap = names_of(ledger.env), ledger.env["LEDGER_KAFKA_BOOTSTRAP"]
    return subprocess.Popen(
        [
            *(sys.executable, CONSUMER, "--bootstrap", bootstrap, "--database", database),
            *("--group", group or group_for(ledger, database)),
            *("--orders", names.orders, "--entries", names.entries, *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def group_for(ledger: WorkerProcess, database: Path) -> str:
    return f"{names_of(ledger.env).prefix}{database.stem}"


def has_committed_everything(ledger: WorkerProcess, group: str) -> bool:
    """Return whether a group has committed the end of each partition that the example reads."""
    names = names_of(ledger.env)

    async def ask() -> bool:
        settings = TopicSettings.from_environment(ledger.env)
        async with clients(settings) as (admin, client):
            topics = (names.orders, names.entries)
            ends = await client.end_offsets(
                [TopicPartition(topic, p) for topic in topics for p in range(PARTITIONS)]
            )
            committed = await admin.list_consumer_group_offsets(group)
        return all(tp in committed and committed[tp].offset == ends[tp] for tp in ends if ends[tp])

    return asyncio.run(ask())


def kept(database: Path, table: str) -> dict[str, Any]:
    """Return the rows that the example has stored in its file so far."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        except sqlite3.OperationalError:
            return {}
    return {key: json.loads(value) for key, value in rows}


def wanted(ledger: WorkerProcess, table: str) -> dict[str, Any]:
    """Return the rows that the example must have at the end: the last value of each key."""
    topic = getattr(names_of(ledger.env), table)
    return {key.decode(): json.loads(value) for key, value in latest(ledger.env, topic).items()}


def ends_right(ledger: WorkerProcess, database: Path, group: str = "") -> None:
    """Run the example until it has read everything; check its rows and its printed balances."""
    known = {table: wanted(ledger, table) for table in ("orders", "entries")}
    group = group or group_for(ledger, database)
    with consumer(ledger, database, group=group) as process:
        try:
            until(
                lambda: has_committed_everything(ledger, group),
                within_s=60,
                what="the example has committed everything",
            )
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert {table: kept(database, table) for table in known} == known
    for order_id, document in kept(database, "orders").items():
        assert ledger.get(f"/orders/{quote(order_id, safe='')}") == (200, document)
    sums: Counter[str] = Counter()
    for document in known["orders"].values():
        for currency, totals in document["totals"].items():
            sums[f"assets:plexy {currency}"] += totals["net"]
            sums[f"income:sales {currency}"] -= totals["paid"]
            sums[f"income:refunds {currency}"] += totals["refunded"]
    printed = dict(line.rsplit(" ", 1) for line in output.splitlines())
    assert {account: int(amount) for account, amount in printed.items() if int(amount)} == {
        account: amount for account, amount in sums.items() if amount
    }


def test_the_example_ends_with_the_same_documents_as_the_views_and_with_the_right_sums(
    ledger, tmp_path
):
    database = tmp_path / "whole.sqlite"
    ends_right(ledger, database)
    # Some orders were deleted, so the example has read documents and their tombstones.
    tombstones = {r.key.decode() for r in read_topic(ledger.env, names_of(ledger.env).orders)}
    assert tombstones - kept(database, "orders").keys()
    # With a new consumer group, the example reads every record again, and writes to the same file.
    ends_right(ledger, database, group=f"{group_for(ledger, database)}-again")


def test_the_example_ends_with_the_same_rows_after_it_was_killed_several_times(ledger, tmp_path):
    database = tmp_path / "killed.sqlite"
    total = len(wanted(ledger, "entries"))
    had = 0
    for _ in range(3):
        with consumer(ledger, database, "--batch", "3") as process:
            try:
                until(
                    lambda had=had: len(kept(database, "entries")) > had + 5,
                    within_s=60,
                    what="the example is at work",
                )
            finally:
                process.kill()
        had = len(kept(database, "entries"))
        assert had < total
    ends_right(ledger, database)


def test_the_example_commits_no_offset_for_records_that_are_not_in_its_file(ledger, tmp_path):
    database = tmp_path / "locked.sqlite"
    with consumer(ledger, database, "--batch", "3") as process:
        try:
            until(lambda: kept(database, "entries"), within_s=60, what="the example is at work")
            with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as holder:
                holder.execute("BEGIN EXCLUSIVE")
                # The example gives up when SQLite's own wait for the lock ends.
                output, _ = process.communicate(timeout=60)
                holder.execute("ROLLBACK")
        finally:
            process.kill()
    assert process.returncode == 1
    assert "database is locked" in output
    assert "Traceback" not in output
    assert len(kept(database, "entries")) < len(wanted(ledger, "entries"))
    ends_right(ledger, database)


def test_the_example_reports_that_kafka_does_not_answer(tmp_path):
    done = subprocess.run(
        [sys.executable, CONSUMER, "--bootstrap", f"127.0.0.1:{free_port()}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("consumer.py: KafkaConnectionError")
    assert "Traceback" not in done.stderr


def printed_by_kcat(ledger: WorkerProcess, table: str) -> bytes:
    """Run the kcat line of docs/events/README.md for this ledger; return what kcat prints."""
    names = names_of(ledger.env)
    topic = getattr(names, table)
    shown = topic.removeprefix(names.prefix)
    (line,) = re.findall(rf"^\$ (kcat .* -t {re.escape(shown)} .*)$", PAGE, re.MULTILINE)
    words = shlex.split(line)
    words[words.index("-b") + 1] = ledger.env["LEDGER_KAFKA_BOOTSTRAP"]
    words[words.index("-t") + 1] = topic
    return subprocess.run(words, capture_output=True, timeout=60, check=True).stdout


needs_kcat = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")


@needs_kcat
@pytest.mark.parametrize("table", ["orders", "entries"])
def test_the_pages_kcat_line_prints_every_record(table, ledger, request):
    lines = [
        f"{record.key.decode()} {record.value.decode() if record.value else 'NULL'}"
        for record in request.getfixturevalue(table)
    ]
    assert lines
    assert Counter(printed_by_kcat(ledger, table).decode().splitlines()) == Counter(lines)


@needs_kcat
def test_the_pages_kcat_line_for_rejections_prints_the_bytes_and_the_reasons(ledger, rejected):
    printed = printed_by_kcat(ledger, "rejected")
    reasons = [reason for record in rejected for key, reason in record.headers if key == "reason"]
    assert reasons
    for reason in reasons:
        assert b"reason=" + reason in printed
    for record in rejected:
        assert b"\n" + record.value + b"\n" in printed


# This test folds the log a second time.


def by_key(records: list[Any]) -> dict[bytes, set[bytes]]:
    values: dict[bytes, set[bytes]] = defaultdict(set)
    for record in records:
        values[record.key].add(record.value)
    return values


def standing(records: list[Any]) -> dict[bytes, bytes]:
    """Return the entries that are not reversed and reverse no other entry."""
    values = {record.key.decode(): record.value for record in records}
    back = {ENTRIES.decode(value).reverses for value in values.values()}
    return {
        key.encode(): value
        for key, value in values.items()
        if key not in back and ENTRIES.decode(value).reverses is None
    }


def test_a_second_fold_of_the_log_publishes_the_same_bytes_under_the_same_keys(
    ledger, entries, rejected, tmp_path
):
    env = ledger.env
    again = env | {
        "LEDGER_VERSION": "2",
        "LEDGER_DATA_DIR": str(tmp_path),
        "LEDGER_WEB_PORT": str(free_port()),
    }
    names = names_of(again)
    asyncio.run(ensure_topics(TopicSettings.from_environment(again)))
    with WorkerProcess(again) as worker:
        # Kill the worker as soon as it has published something, so that it repeats some records.
        until(lambda: read_topic(again, names.entries), within_s=90, what="an entry of version 2")
        worker.signal(signal.SIGKILL)
        worker.wait(10)
        worker.start()
        worker.wait_ready(90)
        wait_folded(again, worker)
    assert latest(again, names.orders) == latest(env, names_of(env).orders)

    entries_again = read_topic(again, names.entries)
    one, other = by_key(entries), by_key(entries_again)
    # The second fold interleaves the log's partitions differently, so it may post and reverse
    # different entries. Entries that both folds have are equal byte for byte.
    assert all(len(values) == 1 for values in [*one.values(), *other.values()])
    assert {key: one[key] for key in one.keys() & other} == {
        key: other[key] for key in one.keys() & other
    }
    assert standing(entries_again) == standing(entries)

    def rejections(records: list[Any]) -> set[Any]:
        found = {(r.key, r.value, tuple(r.headers)) for r in records}
        return {each for each in found if dict(each[2]).get("reason")}

    rejected_again = read_topic(again, names.rejected)
    assert len(rejected_again) > len(rejected)
    assert rejections(rejected_again) == rejections(rejected)
