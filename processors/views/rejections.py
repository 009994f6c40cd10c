"""The list of what was rejected: ``plexy.rejected``, item by item, the newest first.

The topic is read once, and from then on only what is new: what stands in it stays, and whether an
item was put back is said by a later record.
"""

import asyncio
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.quarantine import Item, Quarantine
from ledger.rejections import Reason
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import json_answer

STATES: Final = ("open", "put_back")
_AT_A_TIME: Final = 2_000


class RejectedItem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thing that was rejected; ``source`` is its place in the log, ``http`` if it has none.

    ``event_id`` is its key: the event's id where one could be read, else the SHA-256 of its bytes.
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


class RejectedList(msgspec.Struct):
    """A page; ``cursor`` is of the next one, ``counts`` of all open items by their reason."""

    items: list[RejectedItem]
    counts: dict[str, int]
    cursor: str | None


class Rejections:
    """The quarantine as far as its topic was read."""

    def __init__(self, app: LedgerApp) -> None:
        self._app = app
        self._quarantine = Quarantine(app.names)
        self._read: dict[int, int] = {}
        self._lock = asyncio.Lock()

    async def now(self) -> Quarantine:
        """Read what is new, and return all of it."""
        topic, partitions = self._app.names.rejected, self._app.settings.partitions
        async with self._lock:
            ends = await self._app.reader.ends(topic, partitions)
            if not self._read:
                self._read = dict(await self._app.reader.begins(topic, partitions))
            for partition, end in ends.items():
                while self._read[partition] < end:
                    start = self._read[partition]
                    upto = min(start + _AT_A_TIME, end)
                    window = {partition: start}, {partition: upto}
                    self._quarantine.read(await self._app.reader.between(topic, *window))
                    self._read[partition] = upto
            return self._quarantine


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""
    rejections = Rejections(app)

    @app.page("/rejected")
    class RejectedView(View):
        """What was kept and is not counted, and why; the newest first."""

        async def get(self, request: Request) -> Any:
            wanted = parameters.one_of(request, "state", STATES)
            reason = parameters.one_of(request, "reason", tuple(map(str, Reason)))
            limit, start = parameters.limit(request), _start(request)
            quarantine = await rejections.now()
            items = [
                item
                for item in reversed(quarantine.ordered())
                if wanted in {None, _state(item)} and reason in {None, item.reason}
            ]
            page = RejectedList(
                items=[_listed(item) for item in items[start : start + limit]],
                counts=_counts(quarantine),
                cursor=str(start + limit) if start + limit < len(items) else None,
            )
            return json_answer(msgspec.json.encode(page))


def _start(request: Any) -> int:
    given: str = request.query.get("cursor", "")
    if given and not (given.isascii() and given.isdigit() and len(given) < 10):  # noqa: PLR2004
        raise parameters.invalid("cursor", given, "the `cursor` of the page before")
    return int(given or 0)


def _counts(quarantine: Quarantine) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in quarantine.items.values():
        if item.is_open:
            counts[item.reason] = counts.get(item.reason, 0) + 1
    return dict(sorted(counts.items()))


def _state(item: Item) -> str:
    return "open" if item.is_open else "put_back"


def _listed(item: Item) -> RejectedItem:
    return RejectedItem(
        id=item.id,
        event_id=item.key.decode(errors="replace"),
        state=_state(item),
        reason=item.reason,
        detail=item.detail,
        source=str(item.source) if item.source else item.origin,
        rejected_at_ms=item.at_ms,
        times=item.times,
        put_back_to=item.put_back.to if item.put_back else None,
        put_back_at_ms=item.put_back.at_ms if item.put_back else None,
    )
