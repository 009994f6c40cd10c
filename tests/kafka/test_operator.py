"""When an operator changes Kafka's topics, the ledger stays right, or every program reports it.

Topics are deleted, created again by somebody else, and given more partitions and other settings,
under running programs. The broker creates missing topics by itself, which is Kafka's default.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from runtime.kafka.batches import OutRecord, send_by_key
from runtime.kafka.topics import TopicsError, TopicSettings, ensure_topics
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    event,
    names_of,
    producer,
    read_topic,
    run,
    state_of,
    until,
    wait_folded,
)
from tests.kafka.programs import ask_ingress, program, wait_ingress
from tests.kafka.topics import add_partitions, alter, create, delete, describe

pytestmark = pytest.mark.timeout(240)

WEEK_MS = str(7 * 24 * 3600 * 1000)


@pytest.fixture(scope="module")
def usual_kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """Run a broker that creates missing topics, which is Kafka's default."""
    folder = tmp_path_factory.mktemp("usual")
    properties = {"auto.create.topics.enable": "true"}
    with EmbeddedKafka(folder, cache=kafka_cache, properties=properties) as broker:
        yield broker


@pytest.fixture
def env(usual_kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    made = environment(
        usual_kafka.bootstrap,
        tmp_path / "ledger",
        allow_unsigned="true",
        ingest_port=free_port(),
        answer_within_s=4,
    )
    asyncio.run(ensure_topics(TopicSettings.from_environment(made)))
    return made


def post(env: Mapping[str, str], number: int) -> httpx.Response:
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/webhooks/plexy"
    return httpx.post(url, json=paid(number), trust_env=False, timeout=30)


def paid(number: int) -> dict[str, object]:
    return event(number, merchantReference=f"ord_{number}")


def wait_refused(env: Mapping[str, str], *words: str) -> None:
    """Wait until ingress is not ready for a reason with these words, and answers 503 with it."""

    def refused() -> bool:
        status, page = ask_ingress(env, "/readyz")
        return status == 503 and all(word in json.loads(page)["detail"] for word in words)

    until(refused, within_s=30, what=f"503 with {words}")
    answer = post(env, 1)
    assert answer.status_code == 503
    assert all(word in answer.json()["detail"] for word in words), answer.text


def test_a_log_that_was_deleted_is_not_made_again_by_any_program(env: dict[str, str]) -> None:
    log = names_of(env).webhooks
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        assert post(env, 0).status_code == 200
        wait_folded(env, worker)
        asyncio.run(delete(env, log))
        wait_refused(env, log, "does not exist")
        # The worker ends by itself, and a view that reads the log must not create the topic either.
        worker.get("/orders/ord_0/events")
        assert log in worker.reason_of_end(within_s=60)
        for command in ("status", "verify", "worker", "topics --check"):
            run(env, *command.split())
        run(env, "export-log", Path(env["LEDGER_DATA_DIR"]) / "file")
        assert ask_ingress(env, "/readyz")[0] == 503
    assert log not in asyncio.run(describe(env))


def test_a_log_that_was_made_again_by_other_hands_is_not_appended_to(env: dict[str, str]) -> None:
    log = names_of(env).webhooks
    with program("ingest", env) as ingress:
        wait_ingress(ingress)
        assert post(env, 0).status_code == 200
        asyncio.run(delete(env, log))
        asyncio.run(create(env, log, 1))
        wait_refused(env, f"topic {log} has 1 partitions, and this ledger has {PARTITIONS}")
        asyncio.run(delete(env, log))
        asyncio.run(create(env, log, PARTITIONS, max_message_bytes="20000000"))
        wait_refused(env, f"topic {log} has retention.ms={WEEK_MS}, expected -1")
        asyncio.run(alter(env, log, retention_ms="-1"))
        until(lambda: post(env, 2).status_code == 200, within_s=30, what="a delivery that is kept")


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ({"retention_ms": WEEK_MS}, {"retention_ms": "-1"}),
        ({"cleanup_policy": "compact"}, {"cleanup_policy": "delete"}),
        ({"message_timestamp_type": "LogAppendTime"}, {"message_timestamp_type": "CreateTime"}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_ingress_keeps_nothing_while_a_setting_would_lose_it(
    env: dict[str, str], change: dict[str, str], back: dict[str, str]
) -> None:
    log = names_of(env).webhooks
    with program("ingest", env) as ingress:
        wait_ingress(ingress)
        asyncio.run(alter(env, log, **change))
        ((setting, value),) = change.items()
        wait_refused(env, f"topic {log} has {setting.replace('_', '.')}={value}, expected")
        code, output = run(env, "doctor", "ingest")
        assert code == 1
        assert f"topic {log} has {setting.replace('_', '.')}={value}, expected" in output
        asyncio.run(alter(env, log, **back))
        wait_ingress(ingress)
        assert post(env, 1).status_code == 200


def test_a_log_is_not_imported_into_a_topic_that_would_give_its_records_other_times(
    env: dict[str, str], tmp_path: Path
) -> None:
    deliver(env, map(paid, range(10)))
    file = tmp_path / "log"
    code, output = run(env, "export-log", file)
    assert code == 0, output
    other = environment(env["LEDGER_KAFKA_BOOTSTRAP"], tmp_path / "other")
    log = names_of(other).webhooks
    config = {"retention_ms": "-1", "max_message_bytes": "20000000"}
    asyncio.run(create(other, log, message_timestamp_type="LogAppendTime", **config))
    code, output = run(other, "import-log", file)
    assert code == 1
    assert f"topic {log} has message.timestamp.type=LogAppendTime, expected CreateTime" in output
    assert "--add-config message.timestamp.type=CreateTime" in output
    assert read_topic(other, log) == []
    asyncio.run(alter(other, log, message_timestamp_type="CreateTime"))
    code, output = run(other, "import-log", file)
    assert code == 0, output


def test_a_worker_logs_a_setting_that_was_changed_and_goes_on(env: dict[str, str]) -> None:
    entries = names_of(env).entries
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        asyncio.run(alter(env, entries, retention_ms=WEEK_MS))
        said = until(
            lambda: worker.logged("a topic is not as it must be"), within_s=60, what="a line"
        )
        assert f"topic {entries} has retention.ms={WEEK_MS}, expected -1" in said[0]["fault"]
        deliver(env, [paid(1)])
        wait_folded(env, worker)


def test_a_log_that_was_given_more_partitions_is_named_by_every_program_and_nothing_is_appended(
    env: dict[str, str],
) -> None:
    log = names_of(env).webhooks
    said = f"topic {log} has 8 partitions, and this ledger has {PARTITIONS}"
    with program("ingest", env) as ingress, WorkerProcess(env) as worker:
        wait_ingress(ingress)
        worker.wait_ready()
        assert {post(env, n).status_code for n in range(20)} == {200}
        wait_folded(env, worker)
        asyncio.run(add_partitions(env, log, 8))
        wait_refused(env, said)
        assert said in worker.reason_of_end(within_s=60)
        for command in ("topics", "topics --check", "doctor", "doctor ingest", "status", "worker"):
            code, output = run(env, *command.split())
            assert (code, said in output) == (1, True), (command, output)
        # Changing LEDGER_PARTITIONS looks like the remedy, and does not help.
        for command in ("topics", "worker", "doctor worker", "status"):
            code, output = run(env | {"LEDGER_PARTITIONS": "8"}, *command.split())
            assert code == 1, (command, output)
            assert f"this ledger has {PARTITIONS} partitions, and LEDGER_PARTITIONS is 8" in output
            assert f"set LEDGER_PARTITIONS={PARTITIONS}" in output
    assert {record.partition for record in read_topic(env, log, 8)} <= set(range(PARTITIONS))


def test_a_new_log_takes_over_from_one_with_more_partitions_and_counts_every_sale_once(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A foreign producer has written to the new partitions, and repeated old events there."""
    log = names_of(env).webhooks
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, map(paid, range(40)))
        wait_folded(env, worker)
        worker.stop()
    asyncio.run(add_partitions(env, log, 8))
    write_by_key(env, log, 8, map(paid, range(20, 60)))
    assert max(record.partition for record in read_topic(env, log, 8)) >= PARTITIONS
    file = tmp_path / "log"
    code, output = run(env, "export-log", file)
    assert (code, "80 in " in output) == (0, True), output
    assert f"records of partitions from {PARTITIONS} on, which nobody reads" in output
    other = environment(env["LEDGER_KAFKA_BOOTSTRAP"], tmp_path / "other", allow_unsigned="true")
    code, output = run(other, "import-log", file)
    assert code == 0, output
    with WorkerProcess(other) as worker:
        worker.wait_ready()
        wait_folded(other, worker)
        deliver(other, map(paid, range(60)))
        wait_folded(other, worker)
        code, output = run(other, "verify")
        assert code == 0, output
    assert len(read_topic(other, names_of(other).entries)) == 60
    # The records that were folded before keep their places.
    facts, before = state_of(other)["facts"], state_of(env)["facts"]
    assert {key: facts[key] for key in before} == before
    assert len(before) == 40


def write_by_key(
    env: Mapping[str, str], topic: str, partitions: int, bodies: Iterable[dict[str, object]]
) -> None:
    """Write deliveries like a producer that uses the topic's own number of partitions."""

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            records = [
                OutRecord(str(body["id"]).encode(), json.dumps(body).encode()) for body in bodies
            ]
            await send_by_key(client, topic, records, partitions)

    asyncio.run(send())


def test_a_ledger_of_an_earlier_state_has_its_number_of_partitions_recorded_at_the_next_start(
    env: dict[str, str],
) -> None:
    record = names_of(env).made_with(PARTITIONS)
    asyncio.run(delete(env, record))
    with program("ingest", env) as ingress:
        wait_refused(env, "records the number of partitions", "`plexy-ledger topics`")
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            wait_ingress(ingress)
    assert record in asyncio.run(describe(env))


def test_a_ledger_of_an_earlier_state_with_a_raised_log_is_not_recorded_as_what_it_became(
    env: dict[str, str],
) -> None:
    names = names_of(env)
    asyncio.run(delete(env, names.made_with(PARTITIONS)))
    asyncio.run(add_partitions(env, names.webhooks, 8))
    for partitions in ("4", "8"):
        settings = TopicSettings.from_environment(env | {"LEDGER_PARTITIONS": partitions})
        with pytest.raises(TopicsError, match=f"this ledger has {PARTITIONS}"):
            asyncio.run(ensure_topics(settings))
    assert not names.recorded_partitions(asyncio.run(describe(env)))


async def test_two_that_make_one_ledger_with_different_numbers_of_partitions_do_not_both_succeed(
    usual_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(usual_kafka.bootstrap, tmp_path)
    made = [
        TopicSettings.from_environment(env | {"LEDGER_PARTITIONS": str(count)}) for count in (3, 5)
    ]
    outcomes = await asyncio.gather(*map(ensure_topics, made), return_exceptions=True)
    assert any(isinstance(outcome, TopicsError) for outcome in outcomes), outcomes
