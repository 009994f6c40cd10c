"""The app of ``faust -A processors.app worker``; its settings come from the environment."""

import os
from typing import TYPE_CHECKING

from runtime.environment import isolate_process
from runtime.settings import SettingsError

if TYPE_CHECKING:
    from processors.topology import LedgerApp


def _new_app() -> "LedgerApp":
    isolate_process()
    # Some libraries read environment variables at import, so `isolate_process` is called first.
    from processors.settings import WorkerSettings  # noqa: PLC0415
    from processors.worker import create_app, prepare_process  # noqa: PLC0415

    prepare_process()
    try:
        return create_app(WorkerSettings.from_environment(os.environ))
    except (SettingsError, OSError) as error:
        raise SystemExit(f"the worker can't start: {error}") from None


app = _new_app()
