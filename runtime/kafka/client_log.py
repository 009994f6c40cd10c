"""Keeps aiokafka's last log line, because aiokafka's exceptions do not name the cause.

For example, only this line distinguishes a refused password from an absent broker.
"""

import logging
from types import TracebackType
from typing import Self


class ClientLog(logging.Handler):
    """While attached, keeps aiokafka's lines out of the log output, and stores the last line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last_line = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Store a line, with spaces in place of line breaks."""
        self.last_line = " ".join(record.getMessage().split())

    def attach(self) -> None:
        """Keep aiokafka's lines out of the log output: each connection attempt logs some lines."""
        logger = logging.getLogger("aiokafka")
        logger.addHandler(self)
        logger.propagate = False

    def detach(self) -> None:
        """Let aiokafka's lines into the log output again."""
        logger = logging.getLogger("aiokafka")
        logger.removeHandler(self)
        logger.propagate = not any(isinstance(each, ClientLog) for each in logger.handlers)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.detach()
