"""The app that the engine needs: a Faust app with additional attributes and methods."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import faust

from processors.engine.chunk import ChunkConsumer
from processors.engine.tables import ChunkTable
from processors.engine.writers import Writers
from runtime.kafka.connection import KafkaSettings

if TYPE_CHECKING:
    from processors.engine.spans import Spans


class EngineApp(faust.App):
    """A Faust app that folds topics into tables, one chunk at a time.

    ``kept_forever`` is the topic with the log of record, from which Kafka never deletes records.
    Kafka deletes old records from the other topics that are folded. ``chunk_tables`` has all tables
    by name.
    """

    settings: KafkaSettings
    consumer: ChunkConsumer
    chunk_tables: Mapping[Any, ChunkTable]
    kept_forever: str
    writers: Writers
    spans: "Spans | None"

    @abstractmethod
    def headers_read(self, topic: str) -> int:
        """Return how many headers the fold reads from each record of a topic."""

    @abstractmethod
    def marking_header(self, topic: str) -> str | None:
        """Return the name of the header that, as a record's first header, marks the record.

        The fold reads the other headers of a record only if the record is marked.
        """

    def table_of(self, topic: str) -> ChunkTable:
        """Return the table whose source or changelog is the given topic."""
        tables = self.chunk_tables.values()
        return next(each for each in tables if topic in {each.source, each.changelog_name})
