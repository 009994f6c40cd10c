"""Copies a broker's disk, and restores it from a copy, as an operator restores a backup."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.harness import PARTITIONS


class Disk:
    """A broker's disk; the broker is stopped while the disk is copied or restored."""

    def __init__(self, broker: EmbeddedKafka, copies: Path) -> None:
        self._broker = broker
        self._copies = copies

    @property
    def _data(self) -> Path:
        return self._broker.folder / "data"

    def keep(self) -> Path:
        """Copy the whole disk; return the folder of the copy."""
        copy = self._copies / str(len(list(self._copies.glob("*"))))
        self._broker.stop()
        shutil.copytree(self._data, copy)
        self._broker.start()
        return copy

    def bring_back(self, copy: Path, older: Path | None = None, topics: Sequence[str] = ()) -> None:
        """Replace the disk with a copy, but take the given topics from the older copy."""
        self._broker.stop()
        shutil.rmtree(self._data)
        shutil.copytree(copy, self._data)
        for name in topics:
            for partition in range(PARTITIONS):
                shutil.rmtree(self._data / f"{name}-{partition}")
                assert older
                shutil.copytree(older / f"{name}-{partition}", self._data / f"{name}-{partition}")
        self._broker.start()
