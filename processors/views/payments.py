"""The page of one payment."""

from typing import Any

from faust.web import Request, View

from ledger.payments import PlacedPayment
from ledger.wire import PLACED_PAYMENTS
from processors.topology import LedgerApp
from processors.views import state, waiting
from processors.views.answers import not_found, tagged_answer


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page(r"/payments/{payment_id:[\s\S]+}")
    @state.routed(app, "payments", "payment_id", waiting.more_s)
    async def get_payment(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return a payment's document, with the order that it belongs to."""
        payment_id: str = path["payment_id"]

        def folded() -> PlacedPayment | None:
            return state.placed_payment(app, payment_id)

        document = await waiting.until_folded(app, request, "payments", payment_id, folded)
        if document is None:
            raise not_found("payment", payment_id)
        return tagged_answer(request, PLACED_PAYMENTS.encode(document), document.version)
