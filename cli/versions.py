"""The versions that a bug report needs.

Out: name and version, of this program and of what it rests on. Never: an import of those libraries,
which would take seconds; their metadata says it.
"""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from cli.kafka.distribution import KAFKA_VERSION


def versions() -> Iterator[tuple[str, str]]:
    """Yield names and versions."""
    yield "plexy-ledger", _of("plexy-ledger")
    yield "python", platform.python_version()
    yield "faust-streaming", _of("faust-streaming")
    yield "aiokafka", _of("aiokafka")
    yield "embedded Kafka", KAFKA_VERSION


def _of(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed"
