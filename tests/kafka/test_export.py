"""Exports give accounting programs the ledger's balances, and `reconcile` checks settlements.

The ledger receives deliveries from the simulation of Plexy, some of them late, twice or out of
order. It also receives events that contradict each other, in several currencies. The simulation's
oracle gives the expected settlement.
"""

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console

from cli.accounting.journal import whole_journal
from cli.errors import JournalError
from cli.kafka.broker import EmbeddedKafka
from cli.simulate import oracle
from cli.simulate.schedule import deliveries
from cli.topics.ledger_reader import LedgerReader, open_reader
from ledger.journal import Subject, balances
from ledger.money import major_units
from ledger.payments import fold_payments
from ledger.wire import ENTRIES
from runtime.kafka.batches import OutRecord
from runtime.kafka.topics import TopicSettings, ensure_topics
from runtime.minor_units import MinorUnits
from tests import bookkeeping
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    event,
    free_port,
    names_of,
    read_topic,
    run,
    until,
    wait_folded,
    write,
)
from tests.kafka.programs import start_piped
from tests.ledger.examples import success

pytestmark = pytest.mark.timeout(240)

CURRENCIES = ("JPY", "KZT", "BHD", "USD")
THREE_DECIMALS = "BHD:3"
DIGITS_OF = MinorUnits(THREE_DECIMALS).digits_of


def contradicting() -> list[bytes]:
    """For each payment, return three contradictory successes, the latest first, and a refund."""
    bodies = []
    for number in range(40):
        payment = {"id": f'pay "{number}"; a,b', "merchantReference": f"ord_{number}"}
        for again in range(3):
            currency = CURRENCIES[(number + again) % len(CURRENCIES)]
            money = {"amount": 1000 * again + number, "currency": currency}
            # The successes are more than a day apart. The earliest success, which counts, is on the
            # second of January.
            late = event(100_000 * (3 - again) + number, **payment, **money)
            bodies.append(late)
        bodies.append(
            event(number, "refund.succeeded", id="re", payment_id=payment["id"], amount=7)
        )
    return [json.dumps(body).encode() for body in bodies]


def as_record(body: bytes) -> OutRecord:
    return OutRecord(json.loads(body)["id"].encode(), body)


def is_plain(payment_id: str) -> bool:
    """Return whether an id needs no quotes in any format."""
    return re.fullmatch(r"[\w-]+", payment_id, re.ASCII) is not None


BODIES = [*contradicting(), *(each.body for each in deliveries(21, 700))]


@pytest.fixture(scope="module")
def env(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the settings of a ledger that has folded all bodies.

    The ledger's journal has some entries twice.
    """
    settings = environment(
        kafka.bootstrap, tmp_path_factory.mktemp("export"), minor_units=THREE_DECIMALS
    )
    with WorkerProcess(settings) as worker:
        worker.wait_ready(90)
        write(settings, names_of(settings).webhooks, map(as_record, BODIES))
        wait_folded(settings, worker)
        worker.signal(signal.SIGTERM)
        worker.wait(60)
    entries = names_of(settings).entries
    # Publish some entries again, as a worker does if it was killed before its commit.
    again = [OutRecord(r.key, r.value) for r in read_topic(settings, entries)[::3]]
    write(settings, entries, again)
    return settings


def entries_in(env: Mapping[str, str]) -> dict[str, Any]:
    found = [ENTRIES.decode(record.value) for record in read_topic(env, names_of(env).entries)]
    assert len(found) > len({entry.entry_id for entry in found}), "no entry occurs twice"
    return {entry.entry_id: entry for entry in found}


def ours(env: Mapping[str, str]) -> bookkeeping.Balances:
    return bookkeeping.in_major_units(balances(entries_in(env)), DIGITS_OF)


def export(env: Mapping[str, str], kind: str, file: Path) -> str:
    code, output = run(env, "export", "--format", kind, "--out", file)
    assert code == 0, output
    return output


def test_the_journal_has_reversals_in_several_currencies(env):
    entries = entries_in(env)
    reversed_in = Counter(e.postings[0].currency for e in entries.values() if e.reverses)
    assert len(reversed_in) >= 3
    assert {DIGITS_OF[currency] for _, currency in ours(env)} == {0, 2, 3}


def test_beancount_accepts_the_journal_and_finds_the_same_balances(env, tmp_path):
    file = tmp_path / "plexy.beancount"
    output = export(env, "beancount", file)
    assert f"{len(entries_in(env))} entries of {names_of(env).entries}" in output
    checked = subprocess.run(
        [bookkeeping.BEAN_CHECK, file], capture_output=True, text=True, check=False, timeout=120
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert bookkeeping.beancount_balances(file) == ours(env)


def test_beancount_refuses_a_journal_that_was_altered_by_one_minor_unit(env, tmp_path):
    file = tmp_path / "plexy.beancount"
    export(env, "beancount", file)
    before, amount, after = file.read_text().partition(" KZT\n")
    file.write_text(f"{before[:-1]}{(int(before[-1]) + 1) % 10}{amount}{after}")
    checked = subprocess.run(
        [bookkeeping.BEAN_CHECK, file], capture_output=True, text=True, check=False, timeout=120
    )
    assert checked.returncode == 1
    assert "does not balance" in checked.stderr


def test_hledger_accepts_the_journal_strictly_and_finds_the_same_balances(env, tmp_path):
    file = tmp_path / "plexy.journal"
    export(env, "hledger", file)
    bookkeeping.hledger("--file", file, "check", "--strict", "ordereddates")
    assert bookkeeping.hledger_balances(file) == ours(env)
    # A payment's postings have a tag with the payment's id.
    payment = next(e.payment_id for e in entries_in(env).values() if is_plain(e.payment_id))
    of_it = {e.entry_id: e for e in entries_in(env).values() if e.payment_id == payment}
    listed = bookkeeping.hledger(
        *("--file", file, "print", f"tag:payment=^{payment}$", "--output-format", "json")
    )
    assert len(json.loads(listed)) == len(of_it)


def test_csv_on_standard_output_has_one_row_per_posting_with_the_offset_of_its_event(env):
    done = subprocess.run(
        [sys.executable, "-m", "cli", "export", "--format", "csv"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline=""), strict=True))
    entries = entries_in(env)
    assert Counter(unquote(row["entry"]) for row in rows) == dict.fromkeys(entries, 2)
    assert [row["date"] for row in rows] == sorted(row["date"] for row in rows)
    log = {(r.partition, r.offset): r.key for r in read_topic(env, names_of(env).webhooks)}
    for row in rows:
        entry = entries[unquote(row["entry"])]
        assert unquote(row["payment"]) == entry.payment_id
        assert unquote(row["refund"]) == (entry.refund_id or "")
        place = int(row["partition"]), int(row["offset"])
        assert log[place].decode() == unquote(row["event"]) == entry.event_id
        (leg,) = [each for each in entry.postings if each.account == row["account"]]
        assert (row["amount"], row["currency"]) == (
            major_units(leg.amount, leg.currency, DIGITS_OF),
            leg.currency,
        )


def test_a_second_export_has_the_same_bytes_and_overwrites_no_file(env, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    export(env, "beancount", one)
    export(env, "beancount", other)
    assert one.read_bytes() == other.read_bytes()
    code, output = run(env, "export", "--format", "hledger", "--out", one)
    assert code == 2
    assert "exists already" in output
    assert one.read_bytes() == other.read_bytes()


def test_an_interrupted_export_leaves_no_file(env, tmp_path):
    file = tmp_path / "plexy.csv"
    with start_piped(env, "export", "--format", "csv", "--out", file) as exporting:
        until(lambda: list(tmp_path.iterdir()), within_s=60, what="a file")
        exporting.send_signal(signal.SIGINT)
        output, _ = exporting.communicate(timeout=60)
    assert exporting.returncode == 130, output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


# These tests export incomplete journals.


@pytest.fixture
def idle(kafka: EmbeddedKafka, tmp_path) -> dict[str, str]:
    """Create the topics of a ledger that has no worker; return the settings."""
    settings = environment(kafka.bootstrap, tmp_path)
    asyncio.run(ensure_topics(TopicSettings.from_environment(settings)))
    return settings


def corrected(payment: str = "pay_1") -> list[OutRecord]:
    """Return the three entries of a payment whose two successes arrived in the reverse order."""
    facts = [
        success("evt_2", 2, 700, payment=payment, offset=1),
        success("evt_1", 1, 500, payment=payment, offset=2),
    ]
    entries = fold_payments(facts, {}).entries
    assert len(entries) == 3
    return [OutRecord(entry.entry_id.encode(), ENTRIES.encode(entry)) for entry in entries]


def test_nothing_is_exported_while_a_delivery_is_not_yet_posted(idle, tmp_path):
    write(idle, names_of(idle).webhooks, [as_record(BODIES[0])])
    file = tmp_path / "plexy.csv"
    code, output = run(idle, "export", "--format", "csv", "--out", file, "--wait", "0.5")
    assert code == 1
    assert "1 of 1 records" in output
    assert "start a worker, or give the workers more time" in output
    assert not file.exists()


def test_a_record_that_is_not_an_entry_is_reported_and_nothing_is_exported(idle, tmp_path):
    write(idle, names_of(idle).entries, [OutRecord(b"payment/pay_1/evt_1", b"{}")])
    file = tmp_path / "plexy.csv"
    code, output = run(idle, "export", "--format", "csv", "--out", file)
    assert code == 1
    assert f"{names_of(idle).entries}, partition " in output
    assert "offset 0: the value under the key" in output
    assert "`plexy-ledger verify` lists every difference" in output
    assert not file.exists()


def test_a_journal_with_half_a_correction_is_refused(idle):
    write(idle, names_of(idle).entries, corrected()[:2])
    code, output = run(idle, "export", "--format", "csv")
    assert code == 1
    assert "has only half of a correction of payment 'pay_1'" in output


def written_before(reader: LedgerReader, env: Mapping[str, str], chunks: list[list[OutRecord]]):
    """Make the reader write the next list of records each time before it reads the end offsets.

    When no list is left, the reader writes the last list again. Return a counter of these reads.
    """
    ends_now, topic = reader.ends, names_of(env).entries
    asked = Counter[str]()

    async def ends(name: str) -> Any:
        if name == topic:
            records = chunks[min(asked[topic], len(chunks) - 1)]
            await asyncio.to_thread(write, env, topic, records)
            asked[topic] += 1
        return await ends_now(name)

    reader.ends = ends
    return asked


async def test_after_reading_the_end_offsets_an_export_adds_only_the_missing_half_of_a_correction(
    idle,
):
    """The export leaves out a correction that begins after the end offsets that it has read."""
    half, rest = corrected()[:2], corrected()[2:]
    others = [corrected(f"pay_{number}")[:2] for number in (2, 3, 4)]
    async with open_reader(TopicSettings.from_environment(idle)) as reader:
        asked = written_before(reader, idle, [half, rest + others[0], others[1], others[2]])
        journal = await whole_journal(reader, 10, Console(quiet=True))
    assert asked.total() == 2
    assert sum(journal.ends.values()) == 2
    assert {entry.payment_id for entry in journal.snapshot.entries.values()} == {"pay_1"}
    assert journal.snapshot.standing()[Subject("pay_1")].event_id == "evt_1"


async def test_a_journal_with_half_a_correction_is_refused_while_other_entries_keep_arriving(
    idle,
):
    others = [corrected(f"pay_{number}") for number in range(2, 30)]
    async with open_reader(TopicSettings.from_environment(idle)) as reader:
        asked = written_before(reader, idle, [corrected()[:2], *others])
        with pytest.raises(JournalError, match="has only half of a correction of payment 'pay_1'"):
            await whole_journal(reader, 10, Console(quiet=True))
    assert asked.total() == 2


def test_export_ends_with_one_line_and_leaves_no_file_if_kafka_is_down(tmp_path):
    env = {"LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}"}
    code, output = run(env, "export", "--format", "csv", "--out", tmp_path / "x.csv")
    assert code == 1
    (line,) = output.splitlines()
    assert env["LEDGER_KAFKA_BOOTSTRAP"] in line
    assert list(tmp_path.iterdir()) == []


# These tests reconcile a settlement file with the journal.


def settled() -> list[list[str]]:
    """Return the rows of the processor's settlement, as the oracle computes them."""
    rows = []
    for order in oracle.orders(BODIES).values():
        for payment in order.payments if order else ():
            if payment.amount is not None:
                money = major_units(payment.amount, payment.currency, DIGITS_OF), payment.currency
                rows.append([payment.payment_id, *money, "payment"])
            for refund in payment.refunds:
                money = major_units(refund.amount, refund.currency, DIGITS_OF), refund.currency
                rows.append([payment.payment_id, *money, "refund"])
    return rows


def settlement(folder: Path, rows: list[list[str]]) -> Path:
    file = folder / "settlement.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["payment_id", "amount", "currency", "kind"], *rows])
    return file


def test_a_settlement_with_all_payments_and_refunds_matches(env, tmp_path):
    rows = settled()
    assert len(rows) > 300
    code, output = run(env, "reconcile", settlement(tmp_path, rows))
    assert code == 0, output
    assert f"{len(rows):,} matched, no difference" in output


def test_reconcile_reports_exactly_the_differences_and_counts_them_in_its_totals(env, tmp_path):
    rows = settled()
    less, other, lost = [
        n for n, row in enumerate(rows) if is_plain(row[0]) and row[2:] == ["KZT", "payment"]
    ][:3]
    in_full = rows[less][1]
    rows[less][1] = in_full[:-1] + str((int(in_full[-1]) + 1) % 10)
    rows[other][2] = "USD"
    names = [rows[n][0] for n in (less, other, lost)]
    rows.append(["pay_unheard_of", "1", "JPY", "refund"])
    del rows[lost]
    file = settlement(tmp_path, rows)
    code, output = run(env, "reconcile", "--json", file)
    assert code == 1
    document = json.loads(output)
    found = {each["payment_id"]: each for each in document["differences"]}
    assert {name: each["difference"] for name, each in found.items()} == {
        names[0]: "amount_differs",
        names[1]: "currency_differs",
        names[2]: "missing_there",
        "pay_unheard_of": "missing_here",
    }
    assert document["matched"] == len(rows) - 3
    assert found["pay_unheard_of"]["file"] == {
        "line": file.read_bytes().count(b"\n"),
        "amount_minor": 1,
        "currency": "JPY",
    }
    missing = found[names[2]]["ledger"]
    assert entries_in(env)[missing["entry_id"]].payment_id == names[2]
    totals = {(each["currency"], each["kind"]): each for each in document["totals"]}
    assert totals["JPY", "refund"]["lines"] == totals["JPY", "refund"]["entries"] + 1
    assert totals["KZT", "payment"]["lines"] == totals["KZT", "payment"]["entries"] - 2
    code, output = run(env, "reconcile", file)
    assert code == 1
    assert f"{len(rows) - 3:,} matched, 4 differences" in output
    for name in (*names, "missing here", "missing there", "amount differs", "currency differs"):
        assert name in output


def test_the_options_from_and_to_limit_the_entries_that_must_be_in_the_settlement_file(
    env, tmp_path
):
    file = settlement(tmp_path, [])
    entries = entries_in(env).values()
    reversed_ids = {entry.reverses for entry in entries}
    day = 1_767_225_600  # 2026-01-01
    on_it = [
        entry
        for entry in entries
        if not entry.reverses
        and entry.entry_id not in reversed_ids
        and day <= entry.created < day + 86_400
    ]
    days = ("--from", "2026-01-01", "--to", "2026-01-01")
    code, output = run(env, "reconcile", "--json", *days, file)
    assert (code, len(json.loads(output)["differences"])) == (1, len(on_it))
    assert 0 < len(on_it) < len(settled())
    code, output = run(env, "reconcile", "--to", "2025-12-31", file)
    assert code == 0, output
    code, output = run(env, "reconcile", "--from", "2026-01-02", "--to", "2026-01-01", file)
    assert (code, "--to 2026-01-01 is before --from 2026-01-02" in output) == (2, True)


def test_a_bad_file_ends_reconcile_with_exit_code_2_before_any_connection_to_kafka(tmp_path):
    file = settlement(tmp_path, [["pay_1", "twelve", "KZT", "payment"]])
    env = {"LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}"}
    code, output = run(env, "reconcile", file)
    assert code == 2
    (line,) = output.splitlines()
    assert f"{file}, line 2: amount: " in line
    assert "'twelve'" in line
