"""The worker folds orders and payments of any size, and reports the parts that it leaves out."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from ledger.wire import PAYMENTS
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    event,
    group_of,
    latest,
    names_of,
    read_topic,
    run,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(400)

# JSON escapes each of these characters, so 4,500 payments take 11 MiB.
LONG = '"' * 500
PAYMENTS_OF_ONE_ORDER = 4_500


@pytest.fixture
def worker(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    env = environment(kafka.bootstrap, tmp_path, allow_unsigned="true")
    with WorkerProcess(env) as process:
        process.wait_ready(90)
        yield process


def paid(number: int) -> dict[str, Any]:
    """Return a payment of the large order; its ids have almost the maximum length."""
    body = event(number, id=f"{LONG}{number}", amount=100, merchantReference=LONG)
    return body | {"id": f"{number}{LONG}"}


def path(kind: str, identifier: str, rest: str = "") -> str:
    return f"/{kind}/{quote(identifier, safe='')}{rest}"


def listed(worker: WorkerProcess, order: str) -> list[str]:
    """Read the list of an order's payments page by page; return the ids of the payments."""
    found: list[str] = []
    query = "?limit=200"
    while True:
        status, page = worker.get(path("orders", order, "/payments") + query)
        assert status == 200, page
        found += [each["payment_id"] for each in page["payments"]]
        if page["cursor"] is None:
            return found
        query = f"?limit=200&cursor={page['cursor']}"


def bytes_of(records: list[Any]) -> list[int]:
    return [len(record.value or b"") for record in records]


def test_an_order_of_thousands_of_payments_with_long_ids_stops_no_worker(worker):
    env, names = worker.env, names_of(worker.env)
    numbers = range(1_000, 1_000 + PAYMENTS_OF_ONE_ORDER)
    others = [event(n, merchantReference=f"ord_{n}") for n in range(200)]
    deliver(env, [*map(paid, numbers), *others])
    wait_folded(env, worker, within_s=180)

    status, document = worker.get(path("orders", LONG))
    assert status == 200
    assert document["summary"] == {
        "payments": PAYMENTS_OF_ONE_ORDER,
        "statuses": {"succeeded": PAYMENTS_OF_ONE_ORDER},
        "anomalies": {},
    }
    assert document["totals"]["KZT"]["paid"] == 100 * PAYMENTS_OF_ONE_ORDER
    ends = [paid(numbers[0]), paid(numbers[-1])]
    assert [each["payment_id"] for each in document["payments"]] == [
        each["data"]["id"] for each in ends
    ]
    times = [document["first_event"], document["last_event"]]
    assert times == [each["created"] for each in ends]
    assert worker.get("/orders/ord_199")[1]["totals"]["KZT"]["paid"] == 699

    # A client can read a single payment of the order, and can read all payments page by page.
    status, payment = worker.get(path("payments", f"{LONG}1234"))
    assert (status, payment["amount"], payment["order_id"]) == (200, 100, LONG)
    assert listed(worker, LONG) == sorted(f"{LONG}{n}" for n in numbers)
    (listed_order,) = (
        each for each in worker.get("/orders?limit=200")[1]["orders"] if each["order_id"] == LONG
    )
    assert listed_order["payments"] == PAYMENTS_OF_ONE_ORDER

    # The worker refuses a request if it has to read the whole order for the answer.
    for rest in ("/events", "/proof", "?as_of=2030-01-01", "?event=evt_1&wait=1s"):
        status, problem = worker.get(path("orders", LONG, rest))
        assert (status, problem["code"]) == (413, "order_too_large"), rest

    # One more payment adds no more records than a payment of a small order adds.
    changelog = changelog_name(group_of(env), "orders")
    before = len(read_topic(env, changelog)), len(read_topic(env, names.orders))
    deliver(env, [paid(9_999)])
    wait_folded(env, worker)
    rows, documents = read_topic(env, changelog), read_topic(env, names.orders)
    # In addition to three rows, the chunk writes one record with the offset up to which it folded.
    assert (len(rows) - before[0], len(documents) - before[1]) == (3 + 1, 1)
    assert max(bytes_of(rows)) < 300_000
    assert max(bytes_of(documents)) < 300_000

    code, output = run(env, "verify")
    assert code == 0, output
    assert worker.peak_mib() < 400, worker.peak_mib()
    code, output = run(env, "rebuild")
    assert code == 0, output


def test_a_payment_with_too_many_facts_keeps_its_earliest_facts_and_rejects_the_others(worker):
    env, names = worker.env, names_of(worker.env)
    facts = [event(1, id="pay_1", amount=10_000, merchantReference="ord_1")]
    facts += [
        event(n, "refund.succeeded", id=f"re_{n}", payment_id="pay_1", amount=1)
        for n in range(2, 3_000)
    ]
    mixed = random.Random(1).sample(facts, len(facts))  # noqa: S311
    # Deliver in pieces, so that later deliveries displace some of the facts that were kept before.
    for start in range(0, len(mixed), 600):
        deliver(env, mixed[start : start + 600])
        wait_folded(env, worker)
    deliver(env, [event(9_000, merchantReference="ord_2")])
    wait_folded(env, worker)

    row = latest(env, changelog_name(group_of(env), "payments"))[b"pay_1"]
    kept = PAYMENTS.decode(row).facts
    assert 500 < len(kept) < 2_000
    assert kept.keys() == {f"evt_{n}" for n in range(1, len(kept) + 1)}
    status, order = worker.get("/orders/ord_1")
    assert (status, order["anomalies"]) == (200, ["payment_too_large"])
    assert order["totals"]["KZT"]["refunded"] == len(kept) - 1
    assert worker.get("/orders/ord_2")[1]["status"] == "paid"

    others = {record.key: record for record in read_topic(env, names.rejected)}
    assert others.keys() == {each["id"].encode() for each in facts} - {k.encode() for k in kept}
    headers = dict(others[b"evt_2999"].headers)
    assert headers["reason"] == b"too_many_events"
    assert headers["source-topic"].decode() == names.webhooks
    status, story = worker.get("/events/evt_2999")
    assert (status, story["outcome"]) == (200, "too_many_events")
    assert worker.get("/orders/ord_1/proof")[0] == 413

    code, output = run(env, "verify")
    assert code == 0, output
    code, output = run(env, "export", "--format", "csv")
    assert code == 0, output[-2000:]
    code, output = run(env, "rebuild")
    assert code == 0, output


def test_a_large_order_is_right_after_its_worker_was_killed_repeatedly_during_the_fold(
    kafka, tmp_path
):
    more = {"allow_unsigned": "true", "chunk_records": 40}
    env = environment(kafka.bootstrap, tmp_path, **more)
    moments = random.Random(2)  # noqa: S311
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        for start in range(0, 4_000, 1_000):
            bodies = [event(n, merchantReference="ord_1") for n in range(start, start + 1_000)]
            # Some of the payments then move to a different order.
            moved = [
                event(10_000 + n, id=f"pay_{n}", merchantReference="ord_2")
                | {"created": 1_700_000_000 + n}
                for n in range(start, start + 1_000, 50)
            ]
            deliver(env, [*bodies, *moved])
            folded = moments.randrange(1, 900)
            until(
                lambda wanted=start + folded: version_of(worker) >= wanted - 300,
                within_s=60,
                what="a part of the order folded",
            )
            worker.signal(signal.SIGKILL)
            worker.wait(10)
            worker.start()
            worker.wait_ready(90)
        wait_folded(env, worker, within_s=120)
        document = worker.get("/orders/ord_1")[1]
        assert document["summary"]["payments"] == 4_000 - 80
        assert document["first_event"] == 1_767_225_600 + 1
        assert worker.get("/orders/ord_2")[1]["version"] == 160
        code, output = run(env, "verify")
        assert code == 0, output


def version_of(worker: WorkerProcess) -> int:
    status, document = worker.get("/orders/ord_1")
    return int(document["version"]) if status == 200 else 0
