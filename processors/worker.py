"""The worker program: runs the whole app until a signal or an error ends it.

After SIGTERM or SIGINT, the exit code is 0, and every finished chunk is committed. After an error,
the exit code is not 0, no unfinished chunk is committed, and the last line of the log output has
the reason. A worker that hangs ends itself, so that it does not keep its partitions.
"""

import asyncio
import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import mode.loop
import structlog

from processors import dedupe, orders, payments, views
from processors.engine.databases import DamagedTableError
from processors.engine.disk import causes, explain
from processors.engine.internals import FaustWorker
from processors.rows import CorruptRowError
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from processors.views.access import hide_unreadable_requests
from runtime import internals, logs
from runtime.settings import SettingsError

internals.check()

# A worker ends within this time after a signal. Of this time, the chunks in progress get 8 s.
_STOPPED_WITHIN_S: Final = 9.5
# A worker ends if its event loop stands still for this long. For example, RocksDB 6.14 may wait
# forever when it closes a database whose disk was full. Meanwhile, the consumer's thread would keep
# sending heartbeats, so the worker would keep its partitions.
_STANDS_STILL_FOR_S: Final = 30.0
_ALIVE_EVERY_S: Final = 1.0
# A chunk creates some ten thousand objects that live until the chunk is done. None of these objects
# is in a reference cycle. By default, the garbage collector scans them after every 700 new objects,
# which took a sixth of the time.
_COLLECTED_EVERY: Final = (100_000, 20, 20)
# While the main thread computes, the thread that fetches records waits this long at each of its
# steps. With Python's default of 5 ms, these waits would take most of the time that an event spends
# in the worker.
_SWITCH_EVERY_S: Final = 0.0005

# Errors that a damaged row may cause.
_SUSPICIOUS: Final = (CorruptRowError, AssertionError, LookupError, TypeError, ValueError)

log = structlog.get_logger(__name__)


class Worker(FaustWorker):
    """Faust's worker program, with this project's log output."""

    app: LedgerApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ending = False
        # The value ``False`` keeps Faust from setting up logging.
        self.override_logging = False
        # A spinner would write control sequences between the lines of the log output.
        self.spinner = None

    def execute_from_commandline(self) -> NoReturn:
        """Run until the worker ends; if it can't start, report the reason in one line."""
        try:
            self.app.take_place()
        except (SettingsError, OSError) as error:
            raise SystemExit(f"the worker can't start: {error}") from None
        super().execute_from_commandline()
        raise SystemExit(0)

    async def on_first_start(self) -> None:
        """Set up logging, and watch the event loop from now on."""
        self.start_log()
        # Freeze the modules loaded at start-up, so that the garbage collector never scans them.
        gc.freeze()
        self.add_future(self._show_life())
        await super().on_first_start()

    def start_log(self) -> None:
        """Set up logging, which Faust does not set up, and log the libraries' versions."""
        logs.configure(self.app.settings.log_format, self.app.settings.log_level)
        internals.log_versions()

    async def _show_life(self) -> None:
        while not self._ending:
            faulthandler.dump_traceback_later(_STANDS_STILL_FOR_S, exit=True)
            await asyncio.sleep(_ALIVE_EVERY_S)

    def end_by_error(self, reason: BaseException) -> None:
        """Log the reason, and end the process at once; the next start redoes unfinished work.

        The process ends as if by SIGKILL. Faust would first stop all services one by one. A crashed
        worker gains nothing from such a stop: it commits nothing more, and a table whose disk is
        full can't even be closed.
        """
        found = list(causes(reason))
        try:
            found += self._discard_damages(found)
        except Exception:
            log.exception("damage not repaired")
        for cause in found:
            log.critical("the worker ends", reason=explain(cause, self.app.settings.data_dir))
        os._exit(1)

    def _discard_damages(self, found: Iterable[BaseException]) -> list[DamagedTableError]:
        """Delete damaged partitions, so that the next start restores them from their changelogs.

        If a damaged row may have caused the error, search the tables, and return the damage found.
        The search takes a second for a million rows. If it takes longer than
        ``_STANDS_STILL_FOR_S``, the process ends during the search.
        """
        named = [cause for cause in found if isinstance(cause, DamagedTableError)]
        suspicious = any(isinstance(cause, _SUSPICIOUS) for cause in found)
        # If the consumer's thread reports the error, there is no search, because the main thread
        # could change the tables during a search on the consumer's thread.
        on_main = threading.current_thread() is threading.main_thread()
        searched = list(self.app.scrubber.search()) if suspicious and on_main else []
        places = {(each.table.name, each.partition): each for each in named + searched}
        for damaged in places.values():
            self.app.scrubber.discard(damaged)
        return searched

    def end_by_signal(self) -> None:
        """End the process with a traceback if Faust has not ended it within the limit.

        Faust may wait forever. No work is lost: the next start redoes unfinished chunks.
        """
        self._ending = True
        faulthandler.dump_traceback_later(_STOPPED_WITHIN_S, exit=True)


def prepare_process() -> None:
    """Set up this process for a worker, before its event loop is created.

    The event loop is uvloop, which handles sockets and callbacks in C. This saves a tenth of the
    time that a chunk takes.
    """
    mode.loop.use("uvloop")
    hide_unreadable_requests()
    gc.set_threshold(*_COLLECTED_EVERY)
    sys.setswitchinterval(_SWITCH_EVERY_S)


def create_app(settings: WorkerSettings) -> LedgerApp:
    """Return the worker's app: topics, tables, agents and views."""
    app = new_app(settings, worker_class=Worker, middlewares=views.middlewares(settings.api_token))
    dedupe.add_agent(app)
    payments.add_agent(app)
    orders.add_agent(app)
    views.add_views(app)
    return app


def run(settings: WorkerSettings, **options: Any) -> NoReturn:
    """Run a worker in this process until the worker ends; then end the process."""
    prepare_process()
    worker = create_app(settings).Worker(quiet=True, **options)
    worker.execute_from_commandline()
