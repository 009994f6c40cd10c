"""The worker as ``faust -A processors.app worker`` expects it; settings from the environment."""

import os

from processors.settings import WorkerSettings
from processors.worker import create_app, prepare_process
from runtime.settings import SettingsError

prepare_process()
try:
    app = create_app(WorkerSettings.from_environment(os.environ))
except (SettingsError, OSError) as error:
    raise SystemExit(f"the worker can't start: {error}") from None
