"""The worker program: the whole app, run until a signal or an error ends it.

Out: exit code 0 after SIGTERM or SIGINT, with everything that was done committed; another one after
an error, with nothing committed that was not done.
"""

import faulthandler
import signal
from typing import Any, Final, NoReturn

import faust

from processors import dedupe, orders, payments, views
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from runtime import logs

# The chunks at work get 8 s of it.
_STOPPED_WITHIN_S: Final = 9.5


class Worker(faust.Worker):
    """Faust's worker with the project's logs."""

    app: LedgerApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A spinner writes control sequences between the log's lines.
        self.spinner = None

    def _crash(self, reason: BaseException) -> None:
        self._end_in_time()
        super()._crash(reason)

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        self._end_in_time()
        super()._schedule_shutdown(number)

    def _end_in_time(self) -> None:
        """End the process, showing where it stands, if Faust does not: it waits without bounds.

        Nothing is lost by it: whatever is not done by then comes again.
        """
        faulthandler.dump_traceback_later(_STOPPED_WITHIN_S, exit=True)

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
