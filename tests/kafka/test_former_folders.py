"""A worker uses the tables of an earlier release, but restores the tables that it can't trust.

The tests make the folder of an earlier release: they delete the keys that the earlier release did
not write.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import TABLES
from processors.engine.marks import SOURCE_KEY
from processors.engine.tables import DIGEST_KEY, LAST_KEY, SINCE_KEY
from tests.kafka.answers import SECRET, deliver, paid, refunded
from tests.kafka.harness import PARTITIONS, WorkerProcess, environment, state_of, until, wait_folded
from tests.kafka.verification import verify

pytestmark = pytest.mark.timeout(240)

# Each of these changes introduced keys, and the releases before the change did not write these
# keys. The newest change is first. A mark identifies one record of a topic.
MARKS = (SOURCE_KEY, LAST_KEY)
RELEASES = {
    "before the marks of records": MARKS,
    "before the digests": (*MARKS, DIGEST_KEY),
    "before the times": (*MARKS, DIGEST_KEY, SINCE_KEY),
}


def delete_keys(folder: Path, keys: Iterable[bytes]) -> None:
    databases = list(folder.glob("tables/v1/*/*.db"))
    assert len(databases) == len(TABLES) * PARTITIONS
    for path in databases:
        database = Rdict(str(path), Options(raw_mode=True))
        for key in keys:
            del database[key]
        database.close()


@pytest.mark.parametrize("release", RELEASES)
def test_a_worker_with_the_folder_of_an_earlier_release_reaches_the_state_of_the_log(
    kafka: EmbeddedKafka, tmp_path: Path, release: str
) -> None:
    env = environment(kafka.bootstrap, tmp_path, webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *(paid(f"e{n}", f"p{n}", f"o{n}", 100) for n in range(20)))
        wait_folded(env, worker)
        worker.stop()
    before, name = state_of(env), (tmp_path / "worker-id").read_text()
    delete_keys(tmp_path, RELEASES[release])
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        assert state_of(env) == before
        deliver(env, *(refunded(f"r{n}", f"r{n}", f"p{n}", 100) for n in range(20)))
        wait_folded(env, worker)
        answers = [worker.get(f"/orders/o{n}") for n in range(20)]
        assert {(code, order["status"]) for code, order in answers} == {(200, "refunded")}
        code, printed = verify(env)
        assert code == 0, printed
        assert "compared with the changelogs" in printed
    assert (tmp_path / "worker-id").read_text() == name


@pytest.mark.parametrize("content", ["", '[{"table": "seen"', '{"format": 2, "damages": []}'])
def test_an_unreadable_list_of_damages_is_reported_and_stops_no_worker(
    kafka: EmbeddedKafka, tmp_path: Path, content: str
) -> None:
    env = environment(kafka.bootstrap, tmp_path, webhook_secrets=SECRET)
    file = tmp_path / "damages.json"
    file.write_text(content)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        (line,) = until(
            lambda: worker.logged("former damages not read"), within_s=30, what=worker.tail()
        )
        assert line["file"] == str(file)
        code, answer = worker.get("/tables")
        assert (code, json.dumps(answer["workers"][0]["damages"])) == (200, "[]")
        code, printed = verify(env)
        assert code == 0, printed
