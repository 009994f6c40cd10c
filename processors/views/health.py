"""The probes."""

from typing import Any

from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import json_answer


def add_pages(app: LedgerApp) -> None:
    """Declare the pages."""

    @app.page("/healthz")
    async def get_health(_view: View, _request: Request) -> Any:
        """Report that the process is alive."""
        return json_answer(b'{"status":"alive"}')

    @app.page("/readyz")
    async def get_readiness(_view: View, _request: Request) -> Any:
        """Report whether the tables are recovered, the partitions ours, and no records lost."""
        state.require_ready(app)
        state.require_whole(app)
        return json_answer(b'{"status":"ready"}')
