"""The agent ``dedupe``: from the log of record, each event once.

In: chunks of ``plexy.webhooks``. Out: events to ``ledger.events`` by payment id, bad data to
``plexy.rejected``; state: the table ``seen``, by event id.
"""

from typing import Any

import structlog

from ledger.deduplication import Deduplicated, Rejected, deduplicate
from ledger.rejected import rejected_record
from ledger.wire import EVENTS, SEEN
from processors.batches import OutRecord
from processors.chunk import Chunk
from processors.lanes import work_in_lanes
from processors.topology import LedgerApp

log = structlog.get_logger(__name__)


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    seen = app.chunk_tables["seen"]
    names = app.settings.field_names

    async def work(chunk: Chunk) -> None:
        keys = [record.key for record in chunk.records if record.key]
        known = {k: SEEN.decode(v) for k, v in seen.read_chunk(chunk.partition, keys).items()}
        result = deduplicate(chunk.records, known, names)
        await app.publish(
            chunk,
            app.names.events,
            (OutRecord(event.payment_id.encode(), EVENTS.encode(event)) for event in result.events),
        )
        await app.publish(chunk, app.names.rejected, (_out(app, item) for item in result.rejected))
        await seen.write_chunk(chunk, {k: SEEN.encode(v) for k, v in result.seen.items()})
        _report(chunk, result)

    @app.agent(app.chunked(app.names.webhooks), name="dedupe")
    async def dedupe(chunks: Any) -> None:
        await work_in_lanes(chunks, work)


def _out(app: LedgerApp, item: Rejected) -> OutRecord:
    source = (app.names.webhooks, item.record.partition, item.record.offset)
    body = item.record.value or b""
    return OutRecord(*rejected_record(body, item.rejection, item.event_id, source))


def _report(chunk: Chunk, result: Deduplicated) -> None:
    log.info("deduplicated", chunk=repr(chunk), counts=dict(result.counts))
    for item in result.rejected:
        log.warning(
            "rejected",
            event_id=item.event_id,
            reason=item.rejection.reason,
            field=item.rejection.field,
            partition=item.record.partition,
            offset=item.record.offset,
        )
