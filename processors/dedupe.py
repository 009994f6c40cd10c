"""The agent ``dedupe``: from the log of record, each event once.

In: chunks of ``plexy.webhooks``. Out: events to ``ledger.events`` by payment id, bad data to
``plexy.rejected``; state: the table ``seen``, by event id, with the partition's progress under a
key that is none. Never: an id that is deleted before it is forgotten.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter
from typing import Final

import structlog
from msgspec.structs import replace

from ledger.deduplication import (
    PROGRESS_KEY,
    START,
    Deduplicated,
    Progress,
    Rejected,
    deduplicate,
    forgettable,
    oldest_left,
)
from ledger.rejected import rejected_record
from ledger.wire import EVENTS, PROGRESS, SEEN
from processors.batches import OutRecord
from processors.chunk import Chunk, FetchedRecord, Headers
from processors.effects import Attributes, Effects
from processors.topology import LedgerApp

log = structlog.get_logger(__name__)

# A record adds one key at most: with two searched for each, the table is searched through faster
# than it grows. A small chunk costs a round trip anyway.
_SEARCHED_PER_RECORD: Final = 2
_LEAST_SEARCHED: Final = 200
_TOLD_EVERY_S: Final = 1.0
_type_of: Final = attrgetter("type")


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    counts: Counter[str] = Counter()
    names, forget_after_ms = app.settings.field_names, app.settings.forget_after_ms

    def fold(chunk: Chunk, effects: Effects) -> None:
        stored = effects.read({PROGRESS_KEY, *chunk.keys})
        held = stored.pop(PROGRESS_KEY, None)
        progress = PROGRESS.decode(held) if held else START
        forgotten, progress = sweep(effects.scan, len(chunk.records), progress, forget_after_ms)
        known = {key: SEEN.decode(value) for key, value in stored.items()}
        result = deduplicate(chunk.records, known, names, progress, forget_after_ms)
        passed_on = {record.offset: record.passed_on for record in chunk.traced}
        effects.publish(
            app.names.events,
            (
                OutRecord(
                    event.payment_id.encode(), EVENTS.encode(event), passed_on.get(event.offset, ())
                )
                for event in result.events
            ),
        )
        effects.publish(
            app.names.rejected,
            (
                _rejected(app, item, passed_on.get(item.record.offset, ()))
                for item in result.rejected
            ),
        )
        effects.keep((key, None) for key in forgotten if key not in result.seen)
        effects.keep((key, SEEN.encode(value)) for key, value in result.seen.items())
        effects.keep([(PROGRESS_KEY, PROGRESS.encode(result.progress))])
        told = result.counts + Counter(forgotten=len(forgotten))
        effects.then(partial(tell, told, result.rejected))
        types = Counter(map(_type_of, result.events))
        effects.then(partial(app.metrics.judged, told, types))
        effects.trace(_attributes(chunk, result))

    def tell(told: Counter[str], rejected: Iterable[Rejected]) -> None:
        counts.update(told)
        for item in rejected:
            _warn(item)

    app.add_hop("dedupe", "seen", fold)

    async def tell_counts() -> None:
        """Log what became of the records: a line for each chunk would be a hundred a second."""
        while not app.should_stop:
            await app.sleep(_TOLD_EVERY_S)
            if counts:
                log.info("deduplicated", counts=dict(counts))
                counts.clear()

    app.task(tell_counts)


def sweep(
    scan: Callable[[bytes, int], dict[bytes, bytes]],
    records: int,
    progress: Progress,
    forget_after_ms: int,
) -> tuple[list[bytes], Progress]:
    """Search some rows of the table ``seen`` for ids that are forgotten.

    ``scan`` returns the next rows after a key; ``records`` is the number of records in the chunk.
    Return the forgotten ids, and the progress with how far the table is searched now. What is
    forgotten is decided by the progress *before* the chunk: so an id is forgotten for the whole
    chunk, and also for a worker that judges the chunk again with only a part of its rows written.
    """
    if not progress.searches(forget_after_ms):
        return [], progress
    limit = max(_LEAST_SEARCHED, _SEARCHED_PER_RECORD * records)
    found = scan(progress.swept_to, limit)
    remembered = {key: SEEN.decode(value) for key, value in found.items()}
    at_end = len(found) < limit
    searched = replace(
        progress,
        swept_to=PROGRESS_KEY if at_end else next(reversed(found)),
        oldest_ms=oldest_left(remembered, progress, forget_after_ms),
    )
    return forgettable(remembered, progress, forget_after_ms), searched


def _attributes(chunk: Chunk, result: Deduplicated) -> Iterator[tuple[FetchedRecord, Attributes]]:
    for record, outcome in zip(chunk.records, result.outcomes, strict=True):
        if record.traceparent is not None:
            event_id = (record.key or b"").decode(errors="replace")
            # A type that nobody knows may be any text.
            known = "unfolded" if outcome.startswith("unfolded") else outcome
            yield record, {"ledger.event.id": event_id, "ledger.outcome": known}


def _rejected(app: LedgerApp, item: Rejected, passed_on: Headers) -> OutRecord:
    source = (app.names.webhooks, item.record.partition, item.record.offset)
    body = item.record.value or b""
    key, body, headers = rejected_record(body, item.rejection, item.event_id, source)
    return OutRecord(key, body, [*headers, *passed_on])


def _warn(item: Rejected) -> None:
    log.warning(
        "rejected",
        event_id=item.event_id,
        reason=item.rejection.reason,
        field=item.rejection.field,
        partition=item.record.partition,
        offset=item.record.offset,
    )
