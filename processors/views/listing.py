"""The page that lists orders: all orders, latest change first, or the orders with an anomaly."""

from typing import Any

import msgspec
from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views import by_anomaly, by_change, parameters, state
from processors.views.answers import json_answer
from processors.views.listed import wanted
from processors.views.workers import asks_this_one


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page("/orders")
    async def get_orders(_view: View, request: Request) -> Any:
        """Return a page of the orders of all workers, or of the orders of this worker."""
        state.require_ready(app)
        asked, of_one = wanted(request), asks_this_one(request)
        if asked.anomaly is None:
            if of_one:
                raise parameters.invalid("scope", "worker", "`all` in a request without `anomaly`")
            page = await by_change.page(app, request, asked)
        elif of_one:
            page = by_anomaly.page_here(app, request, asked)
        else:
            page = await by_anomaly.page_of_all(app, request, asked)
        return json_answer(msgspec.json.encode(page))
