"""The liveness probe does not depend on the log, and the readiness probe asks the log."""

import asyncio

from ingest import health
from tests.ingest.conftest import ingress


async def test_liveness_is_200_whatever_the_state_of_the_log(running):
    running.log.reason = "Kafka does not answer"
    answer = await running.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
    assert running.log.asked == 0


async def test_readiness_is_200_while_the_log_can_be_appended_to(running):
    answer = await running.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_readiness_is_503_with_the_reason_if_the_log_cannot_be_appended_to(running):
    running.log.reason = "the topic plexy.webhooks does not exist"
    answer = await running.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert (answer.json()["code"], answer.json()["detail"]) == (
        "log_unavailable",
        "the topic plexy.webhooks does not exist",
    )


async def test_simultaneous_probes_ask_the_log_only_once(running):
    answers = await asyncio.gather(*(running.client.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert running.log.asked == 1


async def test_an_answer_is_reused_only_briefly(monkeypatch):
    monkeypatch.setattr(health, "_FRESH_S", 0.0)
    async with ingress() as started:
        assert (await started.client.get("/readyz")).status_code == 200
        started.log.reason = "Kafka does not answer"
        assert (await started.client.get("/readyz")).status_code == 503
        started.log.reason = None
        assert (await started.client.get("/readyz")).status_code == 200


async def test_head_requests_are_answered(running):
    assert (await running.client.head("/healthz")).status_code == 200
    assert (await running.client.head("/readyz")).status_code == 200
