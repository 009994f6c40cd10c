"""Ingress survives hostile requests and connections; `make fuzz` makes a longer run.

Every answer is documented, ingress logs no failure, its memory is bounded, and no file stays open.
During an attack, ingress still accepts all honest deliveries.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.fuzz.answers import UndocumentedError, answers_in
from tests.fuzz.attacks import ATTACKS
from tests.fuzz.campaign import Figures, attack, send_inputs
from tests.fuzz.honest import honest_deliveries
from tests.fuzz.inputs import PAY_TOKEN
from tests.fuzz.target import Target, running
from tests.ingest.conftest import SECRET
from tests.kafka.harness import environment, free_port

pytestmark = pytest.mark.timeout(180)

SEED = 20_260_101
# An idle ingress uses about 55 MB; sixteen senders add bodies of up to 100 kB each.
MOST_MB = 150


async def ingress(bootstrap: str, folder: Path, **more: object) -> AsyncIterator[Target]:
    port = free_port()
    env = environment(
        bootstrap,
        folder,
        webhook_secrets=SECRET,
        pay_tokens=PAY_TOKEN,
        pay_amounts="major",
        ingest_port=port,
        answer_within_s=5,
        **more,
    )
    await ensure_topics(TopicSettings.from_environment(env))
    async with running(env, folder / "ingress.log") as target:
        yield target


@pytest.fixture
async def target(kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[Target]:
    async for started in ingress(kafka.bootstrap, tmp_path):
        yield started
        lines = [json.loads(line) for line in started.log_file.read_text().splitlines()]
        # One of the attacks sends a valid signature with a time outside the tolerance.
        said = {line["event"] for line in lines if line["level"] != "info"}
        assert said <= {"clock_may_be_wrong"}


# If an attack succeeds, ingress accepts at most one honest delivery, even on an idle machine.
LEAST_HONEST = 2


def assert_served(figures: Figures, most_mb: int) -> None:
    assert figures.honest >= LEAST_HONEST, figures
    assert not figures.refused, figures
    assert figures.memory_mb < most_mb, figures


async def test_hostile_requests_get_documented_answers(target):
    figures, outcomes = await send_inputs(target, 600, SEED)
    assert_served(figures, MOST_MB)
    # The inputs cause every kind of answer that a single request can get.
    codes = {outcome.rpartition(" ")[2] for outcome in outcomes}
    assert {
        "accepted",
        "malformed_request",
        "head_too_large",
        "malformed_json",
        "invalid_envelope",
        "control_characters",
        "signature_mismatch",
        "timestamp_out_of_tolerance",
        "not_found",
        "method_not_allowed",
    } <= codes, codes


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.name)
async def test_an_attack_neither_stops_honest_deliveries_nor_exhausts_memory(target, kind):
    assert_served(await attack(target, kind, 1.0), kind.most_mb)


async def test_the_honest_sender_notices_refused_deliveries(kafka, tmp_path):
    async for target in ingress(kafka.bootstrap, tmp_path, max_body_bytes=10):
        async with honest_deliveries(target.port) as fared:
            await target.exchange(b"", within_s=1)
    assert fared.refused
    assert set(fared.refused) == {"body_too_large"}


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno",
        (
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/problem+json\r\n"
            b'content-length: 38\r\n\r\n{"status":500,"code":"internal_error"}'
        ),
        b"HTTP/1.1 200 OK\r\ncontent-length",
        b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a"',
        b"nonsense\r\n\r\n",
    ],
)
def test_an_undocumented_answer_is_noticed(received):
    with pytest.raises(UndocumentedError):
        answers_in(received)
