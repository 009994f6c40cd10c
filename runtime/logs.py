"""Sets up structured logs: one line per event, in JSON for programs, or in colour for people.

Invariant: no log line contains a secret, a request body or a record's value.
"""

import logging
import sys
from typing import Annotated, Literal

import structlog

from runtime import lines
from runtime.settings import setting

LogFormat = Annotated[
    Literal["json", "pretty", "auto"],
    setting("`json`, `pretty`, or `auto`, which means `pretty` on a terminal and else `json`"),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    setting("`debug`, `info`, `warning` or `error`"),
]


def configure(log_format: LogFormat = "auto", level: LogLevel = "info") -> None:
    """Set up structlog and the libraries' own loggers; ``auto`` is pretty on a terminal.

    Call this once, when a program starts. All lines go to standard error, so that standard output
    contains only a command's result.
    """
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _send_stdlib_through_structlog(shared, renderer, threshold)
    lines.write_to(None if pretty or threshold > logging.INFO else sys.stderr.buffer)


def _send_stdlib_through_structlog(
    shared: list[structlog.typing.Processor],
    renderer: structlog.typing.Processor,
    threshold: int,
) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The libraries' lines at level info are for debugging only. Below level warning, aiokafka also
    # builds a log record for each fetch, which takes 10 % of a worker's time.
    root.setLevel(logging.INFO if threshold <= logging.DEBUG else max(threshold, logging.WARNING))
    logging.getLogger("aiokafka").setLevel(max(threshold, logging.WARNING))
    # Faust warns if a commit takes longer than the interval between commits. That is harmless: the
    # next commit is only late.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)
