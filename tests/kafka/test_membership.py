"""A worker that lost its partitions while it was suspended does not answer from its old tables."""

import contextlib
import http.client
import json

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import deliver, folded, paid, refunded
from tests.kafka.harness import WorkerProcess, environment, two_workers, until

pytestmark = pytest.mark.timeout(240)

ORDERS = 30


def test_a_worker_that_was_suspended_for_longer_than_its_session_gives_no_stale_answer(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    env = environment(kafka.bootstrap, tmp_path_factory.mktemp("one"))
    with two_workers(env, tmp_path_factory.mktemp("two")) as (first, second):
        folded(env, *(paid(f"e{n}", f"p{n}", f"o{n}", 10) for n in range(ORDERS)))
        second.freeze()
        deliver(env, *(refunded(f"r{n}", f"r{n}", f"p{n}", 10) for n in range(ORDERS)))
        for n in range(ORDERS):
            until(
                lambda n=n: is_refunded(first, n),
                within_s=60,
                what="the first worker folds all partitions",
            )
        # The worker answers these requests as soon as it resumes.
        with contextlib.ExitStack() as stack:
            asked = [stack.enter_context(connected_to(second)) for _ in range(ORDERS)]
            for n, connection in enumerate(asked):
                connection.request("GET", f"/orders/o{n}")
            second.go_on()
            answers = [connection.getresponse() for connection in asked]
            found = [(answer.status, json.loads(answer.read())) for answer in answers]
        assert {body["status"] for status, body in found if status == 200} <= {"refunded"}
        assert {status for status, _ in found} <= {200, 503}
        until(
            lambda: is_refunded(second, 1),
            within_s=60,
            what="the second worker back in the group",
        )


def is_refunded(worker: WorkerProcess, number: int) -> bool:
    status, order = worker.get(f"/orders/o{number}")
    return status == 200 and order["status"] == "refunded"


def connected_to(worker: WorkerProcess) -> "contextlib.closing[http.client.HTTPConnection]":
    port = int(worker.env["LEDGER_WEB_PORT"])
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port))
