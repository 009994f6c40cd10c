"""A view can wait for an event, and gives a reason if the event is not folded in time."""

import contextlib
import http.client
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from processors.views.waiting import MOST_WAITERS
from tests.kafka.answers import (
    SECRET,
    TOKEN,
    ask,
    assert_problem,
    deliver,
    event,
    get,
    paid,
    refunded,
)
from tests.kafka.harness import (
    HOLDS_WORK,
    PARTITIONS,
    WorkerProcess,
    environment,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(240)


class TestReadYourWrite:
    def test_an_answer_that_waits_for_an_event_includes_the_event(self, env):
        number = env["LEDGER_WEB_PORT"]
        for n in range(5):
            deliver(env, paid(f"evt_{number}_{n}", f"pay_{number}_{n}", f"wait_{number}", 1))
            path = f"/orders/wait_{number}?event=evt_{number}_{n}&wait=15s"
            assert get(env, path)["totals"]["KZT"]["paid"] == n + 1
            path = f"/payments/pay_{number}_{n}?event=evt_{number}_{n}&wait=15s"
            assert get(env, path)["order_id"] == f"wait_{number}"

    def test_a_request_for_an_event_that_does_not_arrive_gets_504_with_the_reason(self, env):
        for path in ("/orders/nobody?event=evt_never", "/payments/no?event=evt_never&wait=100ms"):
            answer = ask(env, path)
            assert_problem(answer, 504, "event_not_folded")
            assert "not in the log" in answer.json["detail"]

    @pytest.mark.usefixtures("story")
    @pytest.mark.parametrize(
        ("path", "where"),
        [
            ("/orders/ord%2F1?event=evt_moves", "order 'ord 2'"),
            ("/orders/ord%2F1?event=evt_moves&wait=20s", "order 'ord 2'"),
            ("/payments/pay_1?event=evt_left&wait=20s", "payment 'pay_2'"),
        ],
    )
    def test_a_request_for_an_event_of_another_order_or_payment_gets_409_before_the_time_limit(
        self, env, path, where
    ):
        began_s = time.monotonic()
        answer = ask(env, path)
        assert time.monotonic() - began_s < 15
        assert_problem(answer, 409, "event_not_here")
        assert where in answer.json["detail"]

    def test_a_request_for_an_event_that_is_never_folded_gets_409_with_the_reason(self, envs, env):
        name = f"bad_{env['LEDGER_WEB_PORT']}"
        deliver(envs[0], event(name, "payment.succeeded", name, -1))
        deliver(envs[0], event(f"kept_{name}", "dispute.opened", name, 1))
        for event_id, why in ((name, "amount_negative"), (f"kept_{name}", "unfolded")):
            answer = ask(env, f"/orders/{name}?event={event_id}&wait=20s")
            assert_problem(answer, 409, "event_not_here")
            assert why in answer.json["detail"]

    def test_a_request_waits_for_a_refund_until_the_payment_that_names_the_order_arrives(
        self, envs, env
    ):
        name = f"late_{env['LEDGER_WEB_PORT']}"
        deliver(envs[0], refunded(f"evt_{name}", f"re_{name}", f"pay_{name}", 5))
        wait_folded(env)
        path = f"/orders/{name}?event=evt_{name}&wait="
        answer = ask(env, f"{path}100ms")
        assert_problem(answer, 504, "event_not_folded")
        assert "no event has named an order yet" in answer.json["detail"]
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(ask, env, f"{path}20s")
            deliver(envs[0], paid(f"evt_paid_{name}", f"pay_{name}", name))
            assert waiting.result().json["totals"]["KZT"]["refunded"] == 5

    def test_one_waiting_request_too_many_is_refused_and_other_requests_do_not_wait(self, env):
        """If another worker has the order, each request also takes a connection to that worker."""
        name = f"crowd_{env['LEDGER_WEB_PORT']}"
        path = f"/orders/{name}?event=evt_never_{name}&wait=20s"
        with contextlib.ExitStack() as held:
            for _ in range(MOST_WAITERS + 1):
                connection = held.enter_context(
                    contextlib.closing(
                        http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]))
                    )
                )
                connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})

            def refused() -> bool:
                answer = ask(env, path.replace("20s", "0s"))
                return answer.status == 503 and answer.json["code"] == "too_many_waiters"

            until(refused, within_s=15, what="one waiting request too many")
            # Each worker answers for some of these orders, which do not exist.
            assert [ask(env, f"/orders/no_{n}").status for n in range(12)] == [404] * 12

    @pytest.mark.parametrize("wait", ["-1s", "5m", "21", "soon", "1e3", "5 s"])
    def test_an_invalid_wait_is_refused_with_the_name_of_the_parameter(self, env, wait):
        answer = ask(env, f"/orders/ord_1?event=evt_1&wait={quote(wait)}")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == "wait"


# While a request waits, this worker does not search the log. For an answer, it reads at most 3
# records that no worker has judged yet.
HOLDS_WORK_AND_READS_LITTLE = f"""
from processors.views import deliveries, waiting
waiting._LOOK_AFTER_S = 60.0
deliveries._MOST_UNJUDGED = 3
{HOLDS_WORK}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("holds")


@pytest.fixture(scope="module")
def ledger(kafka, folder) -> Iterator[dict[str, str]]:
    env = environment(kafka.bootstrap, folder, api_token=TOKEN, webhook_secrets=SECRET)
    with WorkerProcess(env, [sys.executable, "-c", HOLDS_WORK_AND_READS_LITTLE]) as worker:
        worker.wait_ready(90)
        yield env


@pytest.fixture
def held(ledger, folder: Path) -> Iterator[Path]:
    hold = folder / "hold"
    hold.touch()
    yield hold
    hold.unlink(missing_ok=True)
    wait_folded(ledger)


class TestBeforeAnEventIsJudged:
    """One worker, which writes nothing while the file `hold` exists."""

    def test_an_event_that_is_only_in_the_log_has_the_outcome_accepted_until_a_worker_judges_it(
        self, ledger, held
    ):
        body = paid("evt_new", "pay_new", "ord_new")
        deliver(ledger, body, body)
        found = get(ledger, "/events/evt_new")
        assert found["outcome"] == "accepted"
        assert [each["outcome"] for each in found["deliveries"]] == ["accepted"] * 2
        assert {each["signature"] for each in found["deliveries"]} == {"good"}
        assert_problem(ask(ledger, "/events/evt_not"), 404, "event_not_found")
        answer = ask(ledger, "/orders/ord_new?event=evt_new&wait=100ms")
        assert_problem(answer, 504, "event_not_folded")
        assert "no worker has judged it yet" in answer.json["detail"]
        held.unlink()
        wait_folded(ledger)
        found = get(ledger, "/events/evt_new")
        assert (found["outcome"], found["order_id"]) == ("folded", "ord_new")

    def test_a_waiting_request_is_answered_when_the_event_is_folded(self, ledger, held):
        deliver(ledger, paid("evt_wake", "pay_wake", "ord_wake"))
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(ask, ledger, "/orders/ord_wake?event=evt_wake&wait=20s")
            began_s = time.monotonic()
            until((held.parent / "held").exists, within_s=20, what="a chunk at work")
            assert not waiting.done()
            held.unlink()
            assert waiting.result().status == 200
            assert time.monotonic() - began_s < 15

    @pytest.mark.usefixtures("held")
    def test_a_request_for_an_unknown_event_gets_503_while_too_many_deliveries_are_not_judged(
        self, ledger
    ):
        deliver(ledger, *(paid(f"evt_{n}", f"pay_{n}", "ord_many") for n in range(8 * PARTITIONS)))
        answer = ask(ledger, "/events/evt_among_these")
        assert_problem(answer, 503, "behind")
        assert "not judged yet" in answer.json["detail"]
