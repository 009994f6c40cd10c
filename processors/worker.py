"""The worker program: the whole app, run until a signal or an error ends it.

Out: exit code 0 after SIGTERM or SIGINT, with everything that was done committed; another one after
an error, with nothing committed that was not done.
"""

from typing import Any, NoReturn

import faust
import structlog

from processors import dedupe, orders, payments, views
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from runtime import logs

log = structlog.get_logger(__name__)


class Worker(faust.Worker):
    """Faust's worker with the project's logs."""

    app: LedgerApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A spinner writes control sequences between the log's lines.
        self.spinner = None

    def _setup_logging(self) -> None:
        logs.configure(self.app.settings.log_format, self.app.settings.log_level)


def create_app(settings: WorkerSettings) -> LedgerApp:
    """Return the worker's app: topics, tables, agents and views."""
    app = new_app(settings, worker_class=Worker, middlewares=views.middlewares(settings.api_token))
    dedupe.add_agent(app)
    payments.add_agent(app)
    orders.add_agent(app)
    views.add_views(app)
    return app


def run(settings: WorkerSettings, **options: Any) -> NoReturn:
    """Run a worker in this process until it is told to stop; ends the process."""
    worker = create_app(settings).Worker(quiet=True, **options)
    worker.execute_from_commandline()
