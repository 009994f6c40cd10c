"""Defines a peer: a Kafka Streams application in Java, whose source is in this folder.

The application has the ledger's topology (dedupe by event id and content, fold by payment, fold by
order), topics and state. It uses the Processor API as Kafka's developer guide shows: RocksDB stores
with changelogs and a cache, JSON with Jackson's data binding, at-least-once processing, and acks of
all in-sync replicas. ``Rules.java`` has the cheaper rules of ``plain_rules`` (no anomalies, no
reversals, no checks of fields). All settings have their defaults, except the settings that this
module and ``App.java`` name. ``Tuned`` shows the gain from tuning the Java virtual machine.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from bench.builds import BUILD, build_once
from bench.program import OrderTotals, Peer, totals_by_currency

_SOURCE: Final = Path(__file__).parent
_BUILT: Final = BUILD / "kafka_streams"
# The default is 30 s, and the benchmark would have to wait that long for the last commit.
_COMMIT_MS: Final = "5000"
# With the default of 16 KiB, the broker is so busy that the whole run is slower.
_BATCH_BYTES: Final = "131072"


class KafkaStreams(Peer):
    """The peer that runs as `java peer.App`, with ``threads`` threads."""

    peer = "kafka_streams"
    threads: ClassVar[int]
    jvm: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def lacks(cls) -> str | None:
        """Return a text that names a missing build tool; ``None`` if no build tool is missing."""
        absent = [name for name in ("java", "javac", "mvn") if shutil.which(name) is None]
        if not absent:
            return None
        return f"Kafka Streams needs a JDK (17 or newer) and Maven: there is no {absent[0]}"

    @classmethod
    def prepare(cls) -> None:
        """Compile the application, and fetch its libraries."""
        pom = _SOURCE / "pom.xml"
        build_once(
            "the Kafka Streams application",
            _BUILT,
            [pom, *_SOURCE.rglob("*.java")],
            ["mvn", "-q", "-B", "-f", str(pom), f"-Dout={_BUILT}", "package"],
        )

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        jars = f"{_BUILT / 'peer.jar'}:{_BUILT / 'lib'}/*"
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *self.jvm, quiet, "-cp", jars, "peer.App"]

    def environment(self) -> Mapping[str, str]:
        """Return variables with the worker's broker, topics, group, folder, port and options."""
        return {
            "BENCH_BOOTSTRAP": self.place.bootstrap,
            "BENCH_PREFIX": self.place.prefix,
            "BENCH_APP_ID": self.place.group_id,
            "BENCH_PARTITIONS": str(self.place.partitions),
            "BENCH_FOLDER": str(self.place.folder / "data"),
            "BENCH_WEB_PORT": str(self.place.web_port),
            "BENCH_THREADS": str(self.threads),
            "BENCH_COMMIT_MS": _COMMIT_MS,
            "BENCH_BATCH_BYTES": _BATCH_BYTES,
        }

    def order_totals(self, document: bytes) -> OrderTotals:
        """Read one of the peer's order documents."""
        order = json.loads(document)
        return OrderTotals(order["status"], totals_by_currency(order["totals"]))


class OneThread(KafkaStreams):
    """One thread, which is the default of Kafka Streams."""

    name = "kafka_streams-1"
    title = "Kafka Streams, 1 thread"
    threads = 1


class TwoThreads(KafkaStreams):
    """One thread for each core of the machine on which the project's figures were measured."""

    name = "kafka_streams-2"
    title = "Kafka Streams, 2 threads"
    threads = 2


class FourThreads(KafkaStreams):
    """One thread for each partition."""

    name = "kafka_streams-4"
    title = "Kafka Streams, 4 threads"
    threads = 4


class Tuned(KafkaStreams):
    """A JVM tuned for two cores, with the throughput collector and a fixed heap."""

    name = "kafka_streams-tuned"
    peer = "kafka_streams_tuned"
    title = "Kafka Streams, tuned JVM"
    threads = 2
    jvm = ("-XX:+UseParallelGC", "-Xms1g", "-Xmx1g")
