"""What aiokafka says: it tells a refused password from an absent broker, its exceptions do not.

In: aiokafka's own log lines. Out: the last one, for the one line or error that a program shows.
"""

import logging
from types import TracebackType
from typing import Self


class ClientLog(logging.Handler):
    """Keeps aiokafka's last line in ``last_line``, and all of them from the log, while attached."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last_line = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Remember one line, without its line breaks."""
        self.last_line = " ".join(record.getMessage().split())

    def attach(self) -> None:
        """Take aiokafka's lines: it has some for every attempt."""
        logger = logging.getLogger("aiokafka")
        logger.addHandler(self)
        logger.propagate = False

    def detach(self) -> None:
        """Let them go where they went before."""
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
