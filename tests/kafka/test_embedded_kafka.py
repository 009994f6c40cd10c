"""The embedded Kafka runs real brokers; these tests connect only to this machine (loopback)."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import (
    EmbeddedKafkaError,
    KafkaCache,
    KafkaDistribution,
    KafkaFolderInUseError,
    KafkaNotFetchedError,
    KafkaNotStartedError,
    KafkaPortTakenError,
    default_cache_folder,
)
from cli.kafka.process import free_port, require_free
from tests.kafka.harness import until

PROJECT = Path(__file__).parents[2]


async def _write(bootstrap: str, topic: str, *values: bytes, **security: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **security) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def _read(bootstrap: str, topic: str) -> list[bytes]:
    """Return all records of the topic's only partition."""
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as reader:
        reader.assign([partition])
        end = (await reader.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while len(values) < end:
            values.append((await reader.getone()).value)
        return values


def _is_free(port: int) -> bool:
    try:
        require_free(port)
    except KafkaPortTakenError:
        return False
    return True


def _port(broker: EmbeddedKafka) -> int:
    return int(broker.bootstrap.partition(":")[2])


async def test_a_started_broker_serves_records(kafka):
    assert kafka.poll() is None
    assert kafka.bootstrap.startswith("127.0.0.1:")
    await _write(kafka.bootstrap, "serves", b"one", b"two")
    assert await _read(kafka.bootstrap, "serves") == [b"one", b"two"]


async def test_the_broker_creates_no_topic_by_itself(kafka):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.describe_topics(["nobody-created-this"])
    assert "nobody-created-this" not in await admin.list_topics()
    await admin.close()


async def test_a_broker_keeps_running_after_the_thread_that_started_it_has_ended(
    kafka_cache, tmp_path
):
    broker = EmbeddedKafka(tmp_path, cache=kafka_cache)
    worker = threading.Thread(target=broker.start)
    worker.start()
    await asyncio.to_thread(worker.join)
    try:
        await _write(broker.bootstrap, "alive", b"yes")
        assert await _read(broker.bootstrap, "alive") == [b"yes"]
    finally:
        await asyncio.to_thread(broker.stop)
    assert broker.pid is None


def test_records_survive_a_restart_and_a_kill_and_a_change_of_the_port(kafka_cache, tmp_path):
    folder = tmp_path / "Zürich, = x"
    with EmbeddedKafka(folder, cache=kafka_cache) as broker:
        asyncio.run(_write(broker.bootstrap, "kept", b"before"))
        first_pid = broker.pid
        broker.restart()
        assert broker.pid != first_pid
        assert asyncio.run(_read(broker.bootstrap, "kept")) == [b"before"]

        broker.kill()
        assert broker.poll() == -signal.SIGKILL
        broker.start()
        assert asyncio.run(_read(broker.bootstrap, "kept")) == [b"before"]

    elsewhere = EmbeddedKafka(folder, cache=kafka_cache, port=free_port())
    assert elsewhere.bootstrap != broker.bootstrap
    with elsewhere:
        assert asyncio.run(_read(elsewhere.bootstrap, "kept")) == [b"before"]


def test_a_paused_broker_can_be_stopped_and_is_silent_until_it_is_resumed(kafka_cache, tmp_path):
    with EmbeddedKafka(tmp_path, cache=kafka_cache) as broker:
        asyncio.run(_write(broker.bootstrap, "paused", b"kept"))
        broker.pause()
        assert broker.pid is not None
        assert not broker.serves()
        broker.resume()
        until(broker.serves, within_s=20, what="an answer of the broker")
        assert asyncio.run(_read(broker.bootstrap, "paused")) == [b"kept"]
        broker.pause()
    assert broker.poll() == 128 + signal.SIGTERM, "not Java's exit code for an orderly end"


def test_two_brokers_run_side_by_side(kafka, kafka_cache, tmp_path):
    with EmbeddedKafka(tmp_path, cache=kafka_cache) as other:
        asyncio.run(_write(other.bootstrap, "side-by-side", b"other"))
        asyncio.run(_write(kafka.bootstrap, "side-by-side", b"shared"))
        assert asyncio.run(_read(other.bootstrap, "side-by-side")) == [b"other"]
        assert asyncio.run(_read(kafka.bootstrap, "side-by-side")) == [b"shared"]


def test_the_error_for_a_folder_in_use_names_the_pid_of_its_broker(kafka, kafka_cache):
    with pytest.raises(KafkaFolderInUseError, match=rf"{kafka.folder}.*pid {kafka.pid}"):
        EmbeddedKafka(kafka.folder, cache=kafka_cache).start()
    assert kafka.poll() is None


def test_a_taken_port_is_refused_before_anything_starts(kafka, kafka_cache, tmp_path):
    second = EmbeddedKafka(tmp_path, cache=kafka_cache, port=_port(kafka))
    with pytest.raises(KafkaPortTakenError, match=f"{kafka.bootstrap}.*Choose another port"):
        second.start()
    assert second.pid is None


@pytest.mark.parametrize(
    ("wrong", "timeout_s", "reason"),
    [
        ({"log.retention.ms": "forever"}, 60, "(?s)exit code 1.*forever"),
        ({}, 0.01, "took more than 0.01 s"),
    ],
)
def test_the_error_of_a_failed_start_names_the_reason_and_the_log_file(
    kafka_cache, tmp_path, wrong, timeout_s, reason
):
    broker = EmbeddedKafka(tmp_path, cache=kafka_cache, properties=wrong)
    with pytest.raises(KafkaNotStartedError, match=reason) as error:
        broker.start(timeout_s=timeout_s)
    assert str(broker.log_file) in str(error.value)
    assert broker.pid is None
    until(lambda: _is_free(_port(broker)), within_s=20, what="a free port")


def test_an_added_listener_asks_for_a_password(kafka_cache, tmp_path):
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_a="b\\\\c";'
    listener = "listener.name.sasl_plaintext"
    properties = {
        f"{listener}.sasl.enabled.mechanisms": "PLAIN",
        f"{listener}.plain.sasl.jaas.config": login,
    }
    with EmbeddedKafka(
        tmp_path, cache=kafka_cache, listeners={"SASL_PLAINTEXT": 0}, properties=properties
    ) as broker:
        asyncio.run(
            _write(
                broker.address("SASL_PLAINTEXT"),
                "secured",
                b"value",
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="PLAIN",
                sasl_plain_username="a",
                sasl_plain_password="b\\c",
            )
        )
        assert asyncio.run(_read(broker.bootstrap, "secured")) == [b"value"]
    assert (tmp_path / "server.properties").stat().st_mode & 0o077 == 0


def test_only_this_user_may_enter_the_folder_of_a_broker(kafka_cache, tmp_path):
    folder = tmp_path / "data" / "kafka"
    folder.mkdir(0o755, parents=True)
    with EmbeddedKafka(folder, cache=kafka_cache) as broker:
        assert broker.poll() is None
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_broker_dies_when_its_parent_is_killed(kafka_cache, tmp_path):
    program = f"""if True:
        import asyncio, pathlib, sys
        from cli.kafka.broker import EmbeddedKafka
        from cli.kafka.distribution import KafkaCache
        cache = KafkaCache(folder=pathlib.Path({str(kafka_cache.folder)!r}))
        broker = EmbeddedKafka(pathlib.Path({str(tmp_path)!r}), cache=cache)
        asyncio.run(asyncio.to_thread(broker.start))
        print(broker.pid, broker.bootstrap, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        pid, bootstrap = parent.stdout.readline().split()
        os.kill(int(pid), 0)
        assert not _is_free(int(bootstrap.partition(":")[2]))
        parent.kill()
    until(lambda: _is_free(int(bootstrap.partition(":")[2])), within_s=20, what="a free port")
    until(lambda: not _command_line(pid), within_s=20, what="the end of the broker")


def _command_line(pid: str) -> bytes:
    """Return a process's command line, or an empty text if the process has ended."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_bytes() if file.exists() else b""


# The cache on this machine has the layout of a Maven repository. So the next tests serve the cache
# over HTTP, and fetch Kafka from it.


@contextmanager
def _repository(root: Path, *, damaged: str = "") -> Iterator[tuple[dict[str, str], list[str]]]:
    """Serve `root` over HTTP; yield its URL in jgo's form, and the list of requested paths."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if damaged and self.path.endswith(damaged):
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"junk")
            else:
                super().do_GET()

        def log_message(self, *_args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield {"loopback": f"http://127.0.0.1:{server.server_port}"}, asked
        server.shutdown()
        thread.join()


def _record(_distribution: KafkaDistribution, archive: Path) -> None:
    archive.write_bytes(b"recorded")


def _no_record(_distribution: KafkaDistribution, _archive: Path) -> None:
    raise EmbeddedKafkaError("nothing recorded")


def test_two_concurrent_fetches_share_one_download_and_later_fetches_need_no_network(
    kafka_cache, tmp_path
):
    with _repository(kafka_cache.home) as (repositories, asked), ThreadPoolExecutor(2) as pool:
        cache = KafkaCache(folder=tmp_path, repositories=repositories)
        first, second = pool.map(cache.distribution, [_record, _record])
    assert first == second
    assert len(first.jars) == 46
    assert all(jar.is_file() for jar in first.jars)
    assert sum(path.endswith("/kafka_2.13-4.3.1.jar") for path in asked) == 1
    assert cache.distribution(_no_record) == first, "although the repository is gone"
    assert not list(tmp_path.glob("fetching-*"))


def test_a_lost_jar_is_fetched_again(kafka_cache, tmp_path):
    with _repository(kafka_cache.home) as (repositories, _asked):
        cache = KafkaCache(folder=tmp_path, repositories=repositories)
        lost = cache.distribution(_no_record).jars[0]
        lost.unlink()
        found = cache.distribution(_no_record)
    assert lost.is_file()
    assert found.archive is None, "a start that could not be recorded is not an error"


def test_a_damaged_jar_is_not_kept(kafka_cache, tmp_path):
    with _repository(kafka_cache.home, damaged="slf4j-simple-1.7.36.jar") as (repositories, _asked):
        cache = KafkaCache(folder=tmp_path, repositories=repositories)
        with pytest.raises(KafkaNotFetchedError, match="BadZipFile"):
            cache.distribution(_record)
    assert not cache.home.exists()


def test_the_error_names_the_reason_and_the_alternative_if_kafka_cannot_be_fetched(
    tmp_path, capsys
):
    repositories = {"nobody": f"http://user:pa55word@127.0.0.1:{free_port()}/maven2"}
    cache = KafkaCache(folder=tmp_path / "cache", repositories=repositories)
    with pytest.raises(KafkaNotFetchedError) as error:
        EmbeddedKafka(tmp_path / "folder", cache=cache).start()
    text = str(error.value)
    assert "refused" in text
    assert "set LEDGER_KAFKA_BOOTSTRAP=host:port" in text
    assert "pa55word" not in text
    assert "Fetching Apache Kafka 4.3.1" in capsys.readouterr().err


def test_progress_is_reported_while_kafka_is_fetched_but_not_if_the_cache_has_it(
    kafka_cache, tmp_path
):
    reported: list[str] = []

    @contextmanager
    def progress():
        yield reported.append

    with _repository(kafka_cache.home) as (repositories, _asked):
        cache = KafkaCache(folder=tmp_path, repositories=repositories, progress=progress)
        cache.distribution(_record)
        assert any("45/46 jars" in line for line in reported)
        reported.clear()
        cache.distribution(_record)
    assert reported == []


def test_the_cache_folder_follows_the_environment_that_is_passed_in():
    assert default_cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/plexy-ledger")
    assert default_cache_folder({}).is_relative_to(Path.home())
