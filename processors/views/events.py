"""The pages of one event: its story, and the places of its deliveries in the log of record."""

from typing import Any, Final

import msgspec
from faust.web import Request, View

from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import json_answer, not_found
from processors.views.stories import story_of

_ID: Final = r"{event_id:[\s\S]+}"


def add_pages(app: LedgerApp) -> None:
    """Declare the pages, the longer path first, since an id may contain slashes."""

    @app.page(f"/events/{_ID}/places")
    @state.routed(app, "seen", "event_id")
    async def get_places(_view: View, _request: Request, *_args: Any, **path: Any) -> Any:
        """Return an event's places in the log; the workers request this from each other."""
        found = await state.any_event(app, path["event_id"])
        if found is None:
            raise not_found("event", path["event_id"])
        return json_answer(msgspec.json.encode(found))

    @app.page(f"/events/{_ID}")
    @state.routed(app, "seen", "event_id", state.reads_log)
    async def get_event(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return an event's story, with all its deliveries."""
        state.require_ready(app)
        story = await story_of(app, path["event_id"], raw=parameters.flag(request, "raw"))
        if story is None:
            raise not_found("event", path["event_id"])
        return json_answer(msgspec.json.encode(story))
