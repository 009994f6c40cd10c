"""The agent ``dedupe``: passes on each event of the log of record once.

The agent reads chunks of ``plexy.webhooks``. To ``ledger.events``, it writes events, and notes
about deliveries that do not count, all keyed by payment id. To ``plexy.rejected``, it writes bad
data. If the agent folds a different delivery of a rejected event id, it also writes to
``plexy.rejected`` that the rejected delivery is corrected. The agent's table ``seen`` has a row for
each event id, and stores each partition's progress under the empty key. Invariant: a row is deleted
only after its id is forgotten (``ledger.deduplication`` says when).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Final

import structlog
from msgspec.structs import replace

from ledger.deduplication import (
    PROGRESS_KEY,
    START,
    Deduplicated,
    Progress,
    Seen,
    deduplicate,
    forgettable,
    oldest_left,
)
from ledger.envelope import MAX_ID_BYTES
from ledger.events import Event
from ledger.lifecycle import RuleSet
from ledger.notes import Note
from ledger.rejected import corrected_record
from ledger.wire import EVENTS, PROGRESS, SEEN
from processors.engine.chunk import Attributes, Chunk, FetchedRecord
from processors.engine.effects import Effects
from processors.engine.tables import ChunkTable
from processors.rows import decode_row, decode_rows
from processors.set_aside import set_aside
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord

log = structlog.get_logger(__name__)

# Each chunk searches some rows for forgotten ids. A record adds at most one key, so a search of two
# keys per record proceeds faster than the table grows. A small chunk waits for Kafka anyway, so its
# search covers at least a minimum number of keys.
_SEARCHED_PER_RECORD: Final = 2
_MIN_SEARCHED: Final = 200
_LOGGED_EVERY_S: Final = 1.0
_type_of: Final = attrgetter("type")


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    seen = app.chunk_tables["seen"]
    counts: Counter[str] = Counter()
    reading, forget_after_ms = app.settings.reading, app.settings.forget_after_ms
    trust = app.settings.enforced_trust

    seen.before_folds(partial(require_rules, seen, reading.rules))

    def fold(chunk: Chunk, effects: Effects) -> None:
        stored = effects.read({PROGRESS_KEY, *chunk.keys})
        held = stored.pop(PROGRESS_KEY, None)
        progress = START
        if held is not None:
            place = (chunk.partition, PROGRESS_KEY)
            progress = decode_row(seen, *place, held, PROGRESS.decode)

        def scan(after: bytes, limit: int) -> dict[bytes, Seen]:
            return decode_rows(seen, chunk.partition, effects.scan(after, limit), SEEN.decode)

        forgotten, progress = sweep(scan, len(chunk.records), progress, forget_after_ms)
        known = decode_rows(seen, chunk.partition, stored, SEEN.decode)
        result = deduplicate(chunk.records, known, reading, progress, forget_after_ms, trust)
        passed_on = {record.offset: record.passed_on for record in chunk.traced}
        effects.publish(
            app.names.events,
            (
                OutRecord(
                    each.kept_under.encode(), EVENTS.encode(each), passed_on.get(each.offset, ())
                )
                for each in chain[Event | Note](result.events, result.notes)
            ),
        )
        set_aside(app, chunk, result.rejected, effects)
        # These records say that earlier rejections are corrected. A rejection may be from this
        # chunk, so these records follow the chunk's rejections.
        effects.publish(
            app.names.rejected,
            (OutRecord(*corrected_record(each, app.names.webhooks)) for each in result.corrected),
        )
        effects.keep((key, None) for key in forgotten if key not in result.seen)
        effects.keep((key, SEEN.encode(value)) for key, value in result.seen.items())
        effects.keep([(PROGRESS_KEY, PROGRESS.encode(result.progress))])
        outcomes = result.counts + Counter(forgotten=len(forgotten))
        effects.then(partial(counts.update, outcomes))
        types = Counter(map(_type_of, result.events))
        effects.then(partial(app.metrics.judged, outcomes, types))
        effects.trace(_attributes(chunk, result))

    app.add_hop("dedupe", "seen", fold)

    async def log_counts() -> None:
        """Log the outcomes once a second; a line for each chunk would be 100 lines a second."""
        while not app.should_stop:
            await app.sleep(_LOGGED_EVERY_S)
            if counts:
                log.info("deduplicated", counts=dict(counts))
                counts.clear()

    app.task(log_counts)


class OtherStateError(Exception):
    """The tables were folded by rules that differ from this worker's rules."""


def require_rules(seen: ChunkTable, rules: RuleSet, partition: int) -> None:
    """Raise ``OtherStateError`` if a partition was folded by rules other than ``rules``."""
    held = seen.read(partition, PROGRESS_KEY)
    if held is None:
        return
    folded_by = decode_row(seen, partition, PROGRESS_KEY, held, PROGRESS.decode).rules
    if folded_by != rules.digest:
        raise OtherStateError(
            f"partition {partition} of the table {seen.name} was folded by the rules "
            f"{folded_by or 'of an earlier release'}, and LEDGER_RULES={rules.name} has the digest "
            f"{rules.digest}. Set LEDGER_RULES to the former rules, or fold the log by the new "
            "ones with `plexy-ledger rebuild`, which shows what the change affects"
        )


def sweep(
    scan: Callable[[bytes, int], dict[bytes, Seen]],
    records: int,
    progress: Progress,
    forget_after_ms: int,
) -> tuple[list[bytes], Progress]:
    """Search some rows of the table ``seen`` for forgotten ids.

    ``scan`` returns the next rows after a key; ``records`` is the number of records in the chunk.
    Return the forgotten ids, and the progress with the new position of the search. The progress
    *before* the chunk decides which ids are forgotten. So the decision is the same for the whole
    chunk. A worker that folds the chunk again, because it crashed after it had written some of the
    rows, makes the same decision too.
    """
    if not progress.searches(forget_after_ms):
        return [], progress
    limit = max(_MIN_SEARCHED, _SEARCHED_PER_RECORD * records)
    remembered = scan(progress.swept_to, limit)
    at_end = len(remembered) < limit
    searched = replace(
        progress,
        swept_to=PROGRESS_KEY if at_end else next(reversed(remembered)),
        oldest_ms=oldest_left(remembered, progress, forget_after_ms),
    )
    return forgettable(remembered, progress, forget_after_ms), searched


def _attributes(chunk: Chunk, result: Deduplicated) -> Iterator[tuple[FetchedRecord, Attributes]]:
    for record, outcome in zip(chunk.records, result.outcomes, strict=True):
        if record.traceparent is not None:
            event_id = (record.key or b"")[:MAX_ID_BYTES].decode(errors="replace")
            # The outcome of an unfolded event contains the event's type. An unknown type may be any
            # text, so the attribute leaves the type out.
            known = "unfolded" if outcome.startswith("unfolded") else outcome
            yield record, {"ledger.event.id": event_id, "ledger.outcome": known}
