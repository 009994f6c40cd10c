"""`plexy-ledger verify` finds no fault in a running ledger, and reports each corruption exactly.

Tests that undo their corruption share one ledger, whose worker keeps running. Every other test has
its own ledger. The tests write corruptions to Kafka directly, as anybody with access to Kafka
could.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from aiokafka.record.util import calc_crc32c

from cli.kafka.broker import EmbeddedKafka
from ledger.journal import PLEXY, SALES, Posting
from ledger.money import Money
from ledger.topics import changelog_name
from ledger.wire import ENTRIES, PAYMENTS
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.partitions import partition_for
from tests.kafka.answers import OLD_SECRET, SECRET, deliver
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    event,
    group_of,
    latest,
    names_of,
    producer,
    read_topic,
    until,
    wait_folded,
    write,
)
from tests.kafka.verification import deliveries, history, named, verify

pytestmark = pytest.mark.timeout(240)


@contextmanager
def folded(kafka: EmbeddedKafka, folder: Path) -> Iterator[WorkerProcess]:
    """Run a worker that has folded the history."""
    env = environment(kafka.bootstrap, folder, webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *history())
        wait_folded(env, worker)
        yield worker


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    with folded(kafka, tmp_path) as worker:
        yield worker


@pytest.fixture(scope="module")
def shared(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Run one worker for all tests that undo their changes."""
    with folded(kafka, tmp_path_factory.mktemp("verify")) as worker:
        yield worker


@contextmanager
def altered(env: Mapping[str, str], topic: str, key: bytes, value: bytes | None) -> Iterator[None]:
    """Give a key of a compacted topic a different value during the block."""
    right = latest(env, topic)[key]
    write(env, topic, [OutRecord(key, value)])
    try:
        yield
    finally:
        write(env, topic, [OutRecord(key, right)])


def test_verify_writes_nothing_and_the_worker_stays_ready(shared):
    env = shared.env
    names = names_of(env)
    tables = [changelog_name(group_of(env), t) for t in ("seen", "payments", "orders")]
    topics = [names.webhooks, names.entries, names.orders, names.rejected, *tables]
    before = {topic: len(read_topic(env, topic)) for topic in topics}
    assert verify(env)[0] == 0
    assert {topic: len(read_topic(env, topic)) for topic in topics} == before
    until(lambda: shared.get("/readyz")[0] == 200, within_s=10, what="a worker that is still ready")


def test_verify_finds_no_difference_in_a_clean_history_even_during_deliveries(ledger):
    env = ledger.env
    code, output = verify(env)
    assert (code, named(output)) == (0, []), output
    assert "No difference" in output
    assert "27 records" in output
    with deliveries(env):
        for _ in range(3):
            code, output = verify(env)
            assert (code, named(output)) == (0, []), output
    wait_folded(env, ledger)
    code, output = verify(env)
    assert (code, named(output)) == (0, []), output
    assert "0 payments in motion" in output


def test_a_wrong_amount_in_a_table_is_reported_with_the_events_of_the_payment(shared):
    env = shared.env
    topic = changelog_name(group_of(env), "payments")
    payment = PAYMENTS.decode(latest(env, topic)[b"pay_4"])
    fact = msgspec.structs.replace(payment.facts["evt_4"], money=Money(1, "KZT"))
    wrong = msgspec.structs.replace(payment, facts=payment.facts | {"evt_4": fact})
    with altered(env, topic, b"pay_4", PAYMENTS.encode(wrong)):
        code, output = verify(env)
        # The difference concerns only the payment's own order, and no other order.
        assert verify(env, "--order", "ord_2")[0] == 1
        assert verify(env, "--order", "ord_3")[0] == 0
    assert (code, named(output)) == (1, ["payment_differs  payment pay_4"]), output
    assert "event evt_4: money.amount_minor: expected 504, got 1" in output
    place = f"partition {fact.partition}, offset {fact.offset}"
    assert f"    evt_4  payment.succeeded  {place}" in output
    assert "    evt_104  refund.succeeded  " in output


@pytest.mark.parametrize(
    ("table", "key", "difference"),
    [
        ("payments", b"pay_4", "payment_missing  payment pay_4"),
        ("orders", b"ord_2", "order_missing  order ord_2"),
        ("seen", b"evt_4", "seen_missing  event evt_4"),
    ],
)
def test_a_table_that_lost_a_key_is_reported(shared, table, key, difference):
    topic = changelog_name(group_of(shared.env), table)
    with altered(shared.env, topic, key, None):
        code, output = verify(shared.env)
    assert (code, named(output)) == (1, [difference]), output
    assert "    evt_4  payment.succeeded  partition" in output


def test_a_record_that_a_changelog_lost_is_reported_if_an_older_value_reappears(ledger, kafka):
    env = ledger.env
    topic, partition = (
        changelog_name(group_of(env), "payments"),
        partition_for(b"pay_4", PARTITIONS),
    )
    neighbour = next(
        n for n in range(1000, 2000) if partition_for(b"pay_%d" % n, PARTITIONS) == partition
    )
    older = latest(env, topic)[b"pay_4"]
    # Deliver one body at a time, so that each delivery makes its own batch. Then the second batch
    # follows the batch that is lost.
    for body in (
        event(300, "refund.succeeded", id="re_late", payment_id="pay_4", amount=7),
        event(neighbour, merchantReference="ord_after"),
    ):
        deliver(env, body)
        wait_folded(env, ledger)
    before = [record for record in read_topic(env, topic) if record.partition == partition]
    # Each batch also has two records about the progress of the agent. One record has the end
    # offsets of the topic that the agent writes to. The other record has the offset up to which the
    # agent has folded its source.
    lost, *notes, last, _, _ = before[-6:]
    assert (lost.key, last.key) == (b"pay_4", b"pay_%d" % neighbour)
    kafka.kill()
    try:
        (segment,) = (kafka.folder / "data" / f"{topic}-{partition}").glob("*.log")
        drop_on_disk(segment, lost.offset, records=3)
    finally:
        kafka.start()
    code, output = verify(env)
    after = [record for record in read_topic(env, topic) if record.partition == partition]
    assert [record.offset for record in after] == [
        record.offset for record in before if record not in (lost, *notes)
    ]
    assert latest(env, topic)[b"pay_4"] == older
    # The worker's disk still has the record that the changelog lost.
    place = f"partition {partition} of the table payments on http://127.0.0.1"
    assert (code, named(output)) == (
        1,
        ["payment_differs  payment pay_4", f"replica_differs  {place}:{env['LEDGER_WEB_PORT']}"],
    ), output
    assert "it lacks event evt_300" in output
    assert "    evt_300  refund.succeeded  partition" in output


def test_a_value_in_the_wrong_partition_is_reported(ledger):
    env = ledger.env
    topic = changelog_name(group_of(env), "payments")
    value = latest(env, topic)[b"pay_4"]
    elsewhere = (partition_for(b"pay_4", PARTITIONS) + 1) % PARTITIONS

    async def misplace() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            await send_to_partition(client, topic, elsewhere, [OutRecord(b"pay_4", value)])

    asyncio.run(misplace())
    code, output = verify(env)
    assert (code, named(output)) == (1, [f"value_misplaced  key pay_4 of {topic}"]), output


def test_a_record_that_plexy_did_not_sign_is_reported_even_if_its_event_id_is_known(ledger):
    env = ledger.env
    forged = [
        event(900, merchantReference="ord_forged"),
        event(4, merchantReference="ord_2", amount=1),
    ]
    deliver(env, *forged, secret="whsec_test_key_guessed")
    wait_folded(env, ledger)
    code, output = verify(env)
    found = named(output)
    assert code == 1
    assert [line.split(", ")[1] for line in found] == ["event evt_4", "event evt_900"], output
    assert all(line.startswith("signature_invalid  record plexy.webhooks[") for line in found)
    assert output.count("signature_mismatch") == 2
    code, output = verify(env, "--order", "ord_forged")
    assert code == 1
    assert [line.split(", ")[1] for line in named(output)] == ["event evt_900"]
    # Signatures that are not checked are not reported as good.
    code, output = verify(env, LEDGER_WEBHOOK_SECRETS="", LEDGER_ALLOW_UNSIGNED="true")
    assert code == 0
    assert "not checked" in output


def batches(content: bytes) -> Iterator[slice]:
    """Yield the position of each batch in a segment."""
    batch = 0
    while batch < len(content):
        # A batch begins with its offset, in 8 bytes. The next 4 bytes are the length of the rest.
        end = batch + 12 + int.from_bytes(content[batch + 8 : batch + 12])
        yield slice(batch, end)
        batch = end


def alter_on_disk(segment: Path, old: bytes, new: bytes) -> None:
    """Alter a record on the broker's disk, and correct the checksum of its batch."""
    content = bytearray(segment.read_bytes())
    at = content.index(old)
    content[at : at + len(old)] = new
    (batch,) = (each for each in batches(content) if each.start <= at < each.stop)
    # The checksum is in bytes 17 to 20 of the batch, and covers all later bytes (KIP-98).
    checksum = calc_crc32c(content[batch.start + 21 : batch.stop])
    content[batch.start + 17 : batch.start + 21] = checksum.to_bytes(4)
    segment.write_bytes(content)


def drop_on_disk(segment: Path, offset: int, records: int) -> None:
    """Remove a batch from the broker's disk."""
    content = bytearray(segment.read_bytes())
    (batch,) = (
        each
        for each in batches(content)
        if int.from_bytes(content[each.start : each.start + 8]) == offset
    )
    last_offset_delta = int.from_bytes(content[batch.start + 23 : batch.start + 27])
    assert last_offset_delta + 1 == records
    del content[batch]
    segment.write_bytes(content)
    # Delete the indexes, because their positions are wrong now. The broker creates new indexes.
    for index in ("index", "timeindex"):
        segment.with_suffix(f".{index}").unlink()


def test_a_record_that_was_altered_in_the_log_is_reported_with_the_consequences(ledger, kafka):
    env = ledger.env
    topic, partition = names_of(env).webhooks, partition_for(b"evt_4", PARTITIONS)
    kafka.kill()
    try:
        (segment,) = (kafka.folder / "data" / f"{topic}-{partition}").glob("*.log")
        alter_on_disk(segment, b'"amount": 504', b'"amount": 904')
    finally:
        kafka.start()
    code, output = verify(env)
    (record,) = [each for each in read_topic(env, topic) if b'"amount": 904' in each.value]
    place = f"plexy.webhooks[{partition}]@{record.offset}"
    assert code == 1
    # No other account, payment, order or record is reported.
    assert named(output) == [
        "balance_differs  account assets:plexy KZT",
        "balance_differs  account income:sales KZT",
        "document_differs  order ord_2",
        "entry_differs  entry payment/pay_4/evt_4",
        "entry_missing  entry payment/pay_4/evt_4",
        "order_differs  order ord_2",
        "payment_differs  payment pay_4",
        "seen_differs  event evt_4",
        f"signature_invalid  record {place}, event evt_4",
    ], output
    assert "expected 904, got 504" in output


def test_a_forged_entry_is_reported_with_the_accounts_whose_balances_it_changes(ledger):
    env = ledger.env
    topic = names_of(env).entries
    entry = ENTRIES.decode(latest(env, topic)[b"payment/pay_4/evt_4"])
    forged = msgspec.structs.replace(entry, entry_id="payment/pay_4/evt_x", event_id="evt_x")
    postings = (Posting(PLEXY, 1, "KZT"), Posting(SALES, -1, "KZT"))
    altered = msgspec.structs.replace(entry, postings=postings)
    for each in (forged, altered):
        write(env, topic, [OutRecord(each.entry_id.encode(), ENTRIES.encode(each))])
    code, output = verify(env)
    assert code == 1
    assert named(output) == [
        "balance_differs  account assets:plexy KZT",
        "balance_differs  account income:sales KZT",
        "entry_differs  entry payment/pay_4/evt_4",
        "entry_unexplained  entry payment/pay_4/evt_x",
    ], output


def test_a_published_order_that_differs_from_the_log_is_reported(shared):
    topic = names_of(shared.env).orders
    wrong = latest(shared.env, topic)[b"ord_2"].replace(b'"paid":', b'"paid":1')
    with altered(shared.env, topic, b"ord_2", wrong):
        code, output = verify(shared.env)
    assert (code, named(output)) == (1, ["document_differs  order ord_2"]), output


def test_old_secrets_are_taken_from_the_environment_and_from_a_file(ledger, tmp_path):
    env = ledger.env
    deliver(env, event(300), secret=OLD_SECRET)
    wait_folded(env, ledger)
    assert verify(env)[0] == 1
    code, output = verify(env, LEDGER_OLD_WEBHOOK_SECRETS=f"whsec_test_key_older,{OLD_SECRET}")
    assert code == 0, output
    file = tmp_path / "old"
    file.write_text(f"\n{OLD_SECRET}\n")
    code, output = verify(env, "--old-secrets", str(file))
    assert code == 0
    assert OLD_SECRET not in output
    file.write_text("\n")
    code, output = verify(env, "--old-secrets", str(file))
    assert code == 2
    assert "the file has no secret" in output


def test_the_option_named_since_leaves_out_earlier_deliveries(ledger):
    env = ledger.env
    deliver(env, event(300), secret="whsec_test_key_guessed")
    wait_folded(env, ledger)
    assert verify(env, "--since", "2020-01-01")[0] == 1
    code, output = verify(env, "--since", "2100-01-01")
    assert (code, named(output)) == (0, []), output
    assert "of deliveries since 2100-01-01 00:00:00 UTC" in output


def test_verify_without_a_worker_waits_up_to_its_limit_and_counts_the_unfolded_records(ledger):
    env = ledger.env
    ledger.process.terminate()
    ledger.wait(20)
    code, output = verify(env)
    assert code == 0, output
    deliver(env, event(300))
    code, output = verify(env, "--wait", "0.5")
    assert code == 1
    (line,) = output.splitlines()
    assert f"1 of 28 records of {names_of(env).webhooks} are not folded" in line
    assert "start a worker" in line
