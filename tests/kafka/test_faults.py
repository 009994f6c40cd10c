"""A short run of the program `faults` loses nothing, and each part of this program works.

`make faults` starts a longer run.
"""

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer

from cli.simulate.delivery import SenderOptions
from cli.simulate.simulation import Simulation
from faults import judge as judging
from faults import run as running
from faults.answers import Answers
from faults.folders import DOWN_AT_MOST_S
from faults.group import reset_commits
from faults.injections import KINDS, TAKEN_OVER_WITHIN_S
from faults.judge import judge
from faults.mistakes import delete_record
from faults.proxy import Network, Proxy
from faults.report import WIDTH
from faults.run import plan, run
from faults.tables import disk_differences, opened, rows_of
from faults.topic_settings import change_compression, change_settings, lower_max_message_bytes
from processors.engine.tables import DIGEST_KEY, OFFSET_KEY, stored_digest
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    deliver,
    environment,
    event,
    free_port,
    positions,
    two_workers,
    until,
    wait_folded,
)
from tests.kafka.topics import describe

pytestmark = pytest.mark.timeout(420)


def test_no_delivery_is_lost_or_counted_twice_while_every_layer_has_faults():
    """The faults are in the workers, a disk, ingress, the broker and the credentials."""
    # If the user is not root, the run leaves out the fault of the disk, and reports that it did.
    kinds = ["worker frozen", "worker killed for good", "worker's disk full", "ingress killed"]
    kinds += ["broker killed", "password changed", "certificates renewed"]
    # The run multiplies its time limits by the slack, because other tests run at the same time.
    # With a larger slack, the limit would be longer than the longest fault, so no fault could
    # break the limit.
    slack = 2
    assert slack * TAKEN_OVER_WITHIN_S < DOWN_AT_MOST_S
    command = [sys.executable, "-m", "faults", "--seed", "6", "--faults", "7", "--rate", "60"]
    command += ["--secured", "--slack", str(slack), "--kinds", *kinds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "No difference." in done.stdout
    assert all(kind in done.stdout for kind in kinds)
    assert max(map(len, done.stdout.splitlines())) <= WIDTH


async def test_a_step_that_does_not_end_is_reported_and_all_other_steps_are_judged(
    kafka, tmp_path, monkeypatch
):
    """No ingress runs, no worker runs, and ``verify`` has too little time; the run reports all."""
    env = environment(kafka.bootstrap, tmp_path)
    settings = TopicSettings.from_environment(env)
    await ensure_topics(settings)
    await append(settings, "never folded")
    options = SenderOptions(url=f"http://127.0.0.1:{free_port()}", secrets=("whsec_test_key_any",))
    simulation = Simulation(1, 100, options)
    stage = SimpleNamespace(settings=settings, environment=env, findings=[])
    stage.workers = stage.extras = []
    stage.end_workers = lambda: None
    stage.settle = lambda _s: until(lambda: simulation.owed, within_s=30, what="an attempt")
    monkeypatch.setattr(running, "_ALL_ACKNOWLEDGED_WITHIN_S", 0.5)
    monkeypatch.setattr(judging, "_FOLDED_WITHIN_S", 0.5)
    # Python itself takes longer than this time to start, so ``verify`` can't end in time.
    monkeypatch.setattr(judging, "_VERIFIED_WITHIN_S", 0.01)

    costs = await run(stage, simulation, Answers(stage), [], lambda _cost: None)
    differences = await judge(stage, simulation)

    assert costs == []
    assert stage.findings == ["not every event is acknowledged 0.5 s after the last fault"]
    assert simulation.owed
    *owed, not_folded, verify = differences
    assert not_folded.startswith(f"1 of 1 records of {settings.names.webhooks} are not folded")
    assert owed == [
        f"attempted, but never acknowledged: {event_id}" for event_id in sorted(simulation.owed)
    ]
    assert verify == "verify: it had not ended after 0.01 s"


async def test_a_check_that_raises_an_error_counts_as_a_difference_and_the_other_checks_are_made(
    kafka, tmp_path, monkeypatch
):
    settings = TopicSettings.from_environment(environment(kafka.bootstrap, tmp_path))
    await ensure_topics(settings)
    options = SenderOptions(url=f"http://127.0.0.1:{free_port()}", secrets=("whsec_test_key_any",))
    worker = SimpleNamespace(label="worker 1", folder=tmp_path, url="http://127.0.0.1:9")
    stage = SimpleNamespace(settings=settings, workers=[], extras=[worker], environment={})
    stage.end_workers = lambda: None
    monkeypatch.setattr(judging, "_VERIFIED_WITHIN_S", 0.01)
    (tmp_path / "tables" / "seen-0.db").mkdir(parents=True)
    (tmp_path / "tables" / "seen-0.db" / "CURRENT").write_text("no manifest")

    verify, disks = await judge(stage, Simulation(1, 0, options))

    assert verify == "verify: it had not ended after 0.01 s"
    assert disks.startswith("the disks could not be judged: Exception: ")


def test_every_row_on_a_worker_s_disk_that_differs_from_the_changelog_is_reported(kafka, tmp_path):
    """A worker's disk is compared with the changelog up to the offset where the worker stopped."""
    env = environment(kafka.bootstrap, tmp_path / "one")
    settings = TopicSettings.from_environment(env)
    folders = {"first": tmp_path / "one", "second": tmp_path / "two"}
    with two_workers(env, folders["second"]) as (first, second):
        deliver(env, [event(number) for number in range(40)])
        wait_folded(env, first, second)
        second.stop(30)
        deliver(env, [event(number) for number in range(40, 80)])
        wait_folded(env, first)
        first.stop(30)
    # A worker that is killed while it creates a database leaves such a folder.
    (folder,) = folders["second"].rglob("payments-0.db")
    unfinished = folder.with_name("orders-1.db")
    shutil.rmtree(unfinished)
    unfinished.mkdir()
    (unfinished / "LOCK").touch()
    assert asyncio.run(disk_differences(settings, folders)) == []

    # This worker has digests only of the partitions that it had from the start, so the test chooses
    # such a partition.
    path = next(each for each in folders["first"].rglob("payments-*.db") if knows_digest(each))
    with opened(path) as db:
        changed, lost = list(rows_of(db))[:2]
        db.put(changed, b"another value")
        db.delete(lost)
        db.put(b"unknown", b"value")
        end, count = int(db.get(OFFSET_KEY)) + 1, len(rows_of(db))
    place = f"first: {path.name} at offset {end}"
    assert asyncio.run(disk_differences(settings, folders)) == [
        f"{place}: its digest does not match its rows",
        f"{place}: it lacks 1 of {count} keys: {lost!r}",
        f"{place}: it should not have 1 of {count} keys: b'unknown'",
        f"{place}: it has another value for 1 of {count} keys: {changed!r}",
    ]


def knows_digest(path: Path) -> bool:
    with opened(path, read_only=True) as db:
        end = int(db.get(OFFSET_KEY)) + 1
        return stored_digest(db.get(DIGEST_KEY), end) is not None and len(rows_of(db)) > 1


async def append(settings: TopicSettings, value: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        await producer.send_and_wait(settings.names.webhooks, value.encode(), partition=0)


def test_the_same_seed_plans_the_same_faults_and_every_kind_is_planned():
    def planned(seed: int) -> list[str]:
        return [kind.name for kinds in plan(list(KINDS), count, seed) for kind in kinds]

    # The plan draws each kind once before it draws any kind again, but it may pair each drawn kind
    # with a second fault. So after twice as many faults as kinds, every kind was drawn.
    count = 2 * len(KINDS)

    assert planned(1) == planned(1)
    assert planned(1) != planned(2)
    assert len(planned(1)) == count
    assert set(planned(1)) == {kind.name for kind in KINDS}


def test_a_setting_that_a_fault_changes_is_restored_after_the_fault(kafka, tmp_path):
    settings = TopicSettings.from_environment(environment(kafka.bootstrap, tmp_path))
    asyncio.run(ensure_topics(settings))
    stage = SimpleNamespace(settings=settings, brokers=[kafka])
    env = {"LEDGER_KAFKA_BOOTSTRAP": kafka.bootstrap, "LEDGER_TOPIC_PREFIX": settings.topic_prefix}
    before = asyncio.run(describe(env))

    def changed() -> bool:
        return asyncio.run(describe(env)) != before

    # A broker shows a change a moment after it has accepted the change.
    for seed in range(4):
        for inject in (change_settings, change_compression, lower_max_message_bytes):
            with inject(stage, random.Random(seed)):  # noqa: S311 - drawn by the test
                until(changed, within_s=15, what=f"another setting by {inject.__name__}")
            until(lambda: not changed(), within_s=15, what="the topics' own settings")


def test_a_topic_whose_name_stores_data_is_created_again_after_a_fault_has_deleted_it(
    kafka, tmp_path
):
    env = environment(kafka.bootstrap, tmp_path)
    settings = TopicSettings.from_environment(env)
    asyncio.run(ensure_topics(settings))
    stage = SimpleNamespace(settings=settings, environment=os.environ | env, workers=[])
    before = set(asyncio.run(describe(env)))
    deleted = set()
    for seed in range(3):
        with delete_record(stage, random.Random(seed)):  # noqa: S311 - drawn by the test
            deleted |= before - set(asyncio.run(describe(env)))
        assert set(asyncio.run(describe(env))) == before
    # The fault deleted both topics whose names store data, and no other topic.
    assert len(deleted) == 2
    assert all(".plexy.partitions-" in name or ".plexy.log-" in name for name in deleted)


def test_a_fault_moves_the_committed_offsets_forward_to_the_ends_or_back(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path)
    settings = TopicSettings.from_environment(env)
    asyncio.run(ensure_topics(settings))
    deliver(env, [event(number) for number in range(40)])
    stage = SimpleNamespace(settings=settings, workers=[])
    ends = {tp: at.end for tp, at in positions(env).items()}
    for choose, wanted in (
        (lambda _chance, _commit, end: end, ends),
        (lambda _chance, commit, _end: commit // 2, {tp: end // 2 for tp, end in ends.items()}),
    ):
        with reset_commits(choose)(stage, random.Random(1)):  # noqa: S311 - drawn by the test
            assert {tp: at.committed for tp, at in positions(env).items()} == wanted


def test_paired_faults_are_in_different_layers():
    pairs = [kinds for kinds in plan(list(KINDS), 200, 5) if len(kinds) > 1]
    assert pairs
    assert all(one.layer != other.layer for one, other in pairs)
    # The run judges how long some kinds of faults take. No second fault may delay such a fault.
    assert not any(kind.comes_alone for kinds in pairs for kind in kinds)


def echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(10) == b""
    except ConnectionError:
        return True


@pytest.fixture
def echoing():
    """Yield the port of a server that echoes every byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def test_the_proxy_can_delay_bytes_and_withhold_bytes_and_refuse_connections(echoing):
    with Proxy(free_port(), echoing, slow_by_s=0.2) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"

            proxy.network = Network.SLOW
            began_s = time.monotonic()
            client.sendall(b"two")
            assert client.recv(10) == b"two"
            assert time.monotonic() - began_s >= 0.4

            proxy.network = Network.SILENT
            client.sendall(b"three")
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(10)
            client.settimeout(10)
            proxy.network = Network.GOOD
            assert client.recv(10) == b"three"

            proxy.network = Network.REFUSING
            assert is_cut(client)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as refused:
            assert is_cut(refused)
