"""Keeps aiokafka's last log line, which has the cause that aiokafka's exceptions lack.

For example, only this line distinguishes a refused password from an absent broker.
"""

import logging
from types import TracebackType
from typing import Self


class ClientLog(logging.Handler):
    """While attached, keeps aiokafka's lines out of the log; ``last_line`` is the last of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last_line = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, without its line breaks."""
        self.last_line = " ".join(record.getMessage().split())

    def attach(self) -> None:
        """Keep aiokafka's lines out of the log, because each connection attempt logs some."""
        logger = logging.getLogger("aiokafka")
        logger.addHandler(self)
        logger.propagate = False

    def detach(self) -> None:
        """Let aiokafka's lines into the log again."""
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
