"""The probes."""

from typing import Any

from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import json_answer


def add_pages(app: LedgerApp) -> None:
    """Declare the pages."""

    @app.page("/healthz")
    class Health(View):
        """The process is alive."""

        async def get(self, _request: Request) -> Any:
            return json_answer(b'{"status":"alive"}')

    @app.page("/readyz")
    class Readiness(View):
        """The tables are recovered, the membership is confirmed, and no record is lost."""

        async def get(self, _request: Request) -> Any:
            state.require_ready(app)
            state.require_whole(app)
            return json_answer(b'{"status":"ready"}')
