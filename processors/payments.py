"""The agent ``payments``: the facts of each payment, and what follows from them.

In: chunks of ``ledger.events``. Out: journal entries to ``ledger.entries``, snapshots to
``ledger.payments`` by order id; state: the table ``payments``, by payment id.
"""

from typing import Any

import structlog

from ledger.payments import fold_payments
from ledger.wire import ENTRIES, EVENTS, PAYMENTS, SNAPSHOTS
from processors.batches import OutRecord
from processors.chunk import Chunk
from processors.lanes import work_in_lanes
from processors.topology import LedgerApp

log = structlog.get_logger(__name__)


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    payments = app.chunk_tables["payments"]

    async def work(chunk: Chunk) -> None:
        events = [EVENTS.decode(record.value or b"") for record in chunk.records]
        stored = payments.read_chunk(chunk.partition, chunk.keys)
        known = {key.decode(): PAYMENTS.decode(value) for key, value in stored.items()}
        folded = fold_payments(events, known)
        await app.publish(
            chunk,
            {
                app.names.entries: [
                    OutRecord(entry.entry_id.encode(), ENTRIES.encode(entry))
                    for entry in folded.entries
                ],
                app.names.payments: [
                    OutRecord(snapshot.order_id.encode(), SNAPSHOTS.encode(snapshot))
                    for snapshot in folded.snapshots
                ],
            },
        )
        await payments.write_chunk(
            chunk, {key.encode(): PAYMENTS.encode(value) for key, value in folded.payments.items()}
        )

        for event in folded.reused:
            log.warning(
                "event_id_reused",
                event_id=event.event_id,
                payment_id=event.payment_id,
                partition=event.partition,
                offset=event.offset,
            )

    @app.agent(app.chunked(app.names.events), name="payments")
    async def fold(chunks: Any) -> None:
        await work_in_lanes(chunks, work)
