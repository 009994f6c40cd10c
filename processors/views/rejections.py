"""The page of the quarantine: the items of ``plexy.rejected``, the newest first.

A cursor is the sort key of a page's last item. The key starts with the item's time, so items that
are rejected between two requests do not shift the pages.
"""

from typing import Any, Final, get_args

import msgspec
from faust.web import Request, View

from ledger.quarantine import Item, ItemState, Quarantine
from ledger.rejected import Unkept
from ledger.rejections import Reason
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import json_answer

STATES: Final = get_args(ItemState)


class RejectedItem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A rejected item; ``source`` is the item's place in the log, or ``http`` if it has none.

    ``event_id`` is the item's key: the event's id or, if no id could be read, the SHA-256 of the
    item's bytes. For a corrected item, ``put_back_to`` is the place of the delivery that counts
    instead. If the item's bytes are too large for the quarantine, ``unkept`` has their size and
    their SHA-256.
    """

    id: str
    event_id: str
    state: str
    reason: str
    detail: str
    source: str
    rejected_at_ms: int
    times: int = 1
    put_back_to: str | None = None
    put_back_at_ms: int | None = None
    unkept: Unkept | None = None


class RejectedList(msgspec.Struct):
    """A page of items; ``counts`` has the number of all open items by reason.

    ``cursor`` is the next page's cursor, or ``None`` on the last page.
    """

    items: list[RejectedItem]
    counts: dict[str, int]
    cursor: str | None


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page("/rejected")
    async def get_rejected(_view: View, request: Request) -> Any:
        """Return the rejected items with their reasons, the newest first."""
        wanted = parameters.one_of(request, "state", STATES)
        reason = parameters.one_of(request, "reason", tuple(map(str, Reason)))
        below = parameters.cursor(request, tuple[int, str, int, int])
        limit = parameters.limit(request)
        quarantine = await app.rejections.now()
        items = [
            item
            for item in reversed(quarantine.ordered())
            if (below is None or item.position < below)
            and wanted in {None, item.state}
            and reason in {None, item.reason}
        ]
        page = RejectedList(
            items=[_listed(item) for item in items[:limit]],
            counts=_counts(quarantine),
            cursor=(
                parameters.written_cursor(items[limit - 1].position) if len(items) > limit else None
            ),
        )
        return json_answer(msgspec.json.encode(page))


def _counts(quarantine: Quarantine) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in quarantine.items.values():
        if item.is_open:
            counts[item.reason] = counts.get(item.reason, 0) + 1
    return dict(sorted(counts.items()))


def _listed(item: Item) -> RejectedItem:
    return RejectedItem(
        id=item.id,
        event_id=item.key.decode(errors="replace"),
        state=item.state,
        reason=item.reason,
        detail=item.detail,
        source=str(item.source) if item.source else item.origin,
        rejected_at_ms=item.at_ms,
        times=item.times,
        put_back_to=item.put_back.to if item.put_back else None,
        put_back_at_ms=item.put_back.at_ms if item.put_back else None,
        unkept=item.unkept,
    )
