"""The page for Prometheus, which sends the token as readers of orders do."""

from typing import Any

from aiohttp import web
from faust.web import Request, View

from processors.readings import Readings
from processors.topology import LedgerApp
from processors.views.state import unready
from runtime.metrics import CONTENT_TYPE


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""
    readings = Readings(app)

    @app.page("/metrics")
    class MetricsView(View):
        """The metrics of this worker."""

        async def get(self, _request: Request) -> Any:
            body = await readings.page(ready=unready(app) is None)
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
