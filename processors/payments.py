"""The agent ``payments``: folds the facts of each payment, and posts its entries.

The agent reads chunks of ``ledger.events``, which have events and notes. To ``ledger.entries``, it
writes journal entries. To ``ledger.payments``, it writes snapshots, keyed by order id. To
``plexy.rejected``, it writes facts that no longer fit into their payment. The agent's state is the
table ``payments``, keyed by payment id.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import structlog

from ledger.accounting.activity import activity_of
from ledger.derived import Readings, read_events
from ledger.events import Event
from ledger.notes import Note
from ledger.payments import FoldedPayments, fold_payments
from ledger.rejected import set_aside_record
from ledger.rejections import Reason
from ledger.wire import ENTRIES, PAYMENTS, SNAPSHOTS
from processors.engine.chunk import Attributes, Chunk, FetchedRecord
from processors.engine.effects import Effects
from processors.metrics import WorkerMetrics
from processors.rows import decode_rows
from processors.set_aside import set_aside
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord

log = structlog.get_logger(__name__)


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    payments = app.chunk_tables["payments"]

    def fold(chunk: Chunk, effects: Effects) -> None:
        readings = read_events(chunk.records)
        events = readings.values
        set_aside(app, chunk, readings.rejected, effects)
        stored = effects.read(readings.keys)
        rows = decode_rows(payments, chunk.partition, stored, PAYMENTS.decode)
        known = {key.decode(): payment for key, payment in rows.items()}
        folded = fold_payments(events, known)
        # A payment's outputs carry the trace of the payment's last traced record.
        passed_on = {
            (each.key or b"").decode(): each.passed_on
            for each in readings.records
            if each.traceparent is not None
        }
        effects.publish(
            app.names.entries,
            (
                OutRecord(
                    entry.entry_id.encode(),
                    ENTRIES.encode(entry),
                    passed_on.get(entry.payment_id, ()),
                )
                for entry in folded.entries
            ),
        )
        effects.publish(
            app.names.payments,
            (
                OutRecord(
                    snapshot.order_id.encode(),
                    SNAPSHOTS.encode(snapshot),
                    passed_on.get(snapshot.payment_id, ()),
                )
                for snapshot in folded.snapshots
            ),
        )
        effects.publish(
            app.names.rejected,
            (OutRecord(*set_aside_record(fact, app.names.webhooks)) for fact in folded.aside),
        )
        effects.keep(
            (key.encode(), PAYMENTS.encode(value)) for key, value in folded.payments.items()
        )
        effects.then(partial(app.posted.changed, chunk.partition, activity_of(folded.entries)))
        effects.then(partial(_report, app.metrics, folded.reused, folded.aside))
        effects.trace(_attributes(readings, folded))

    app.add_hop("payments", "payments", fold)


def _attributes(
    readings: Readings[FetchedRecord, Event | Note], folded: FoldedPayments
) -> Iterator[tuple[FetchedRecord, Attributes]]:
    reused = {event.event_id for event in folded.reused}
    aside = {event.event_id for event in folded.aside}
    for record, event in zip(readings.records, readings.values, strict=True):
        if record.traceparent is None:
            continue
        payment_id = event.kept_under
        payment = folded.payments.get(payment_id)
        if isinstance(event, Note):
            outcome = event.outcome
        elif event.event_id in aside:
            outcome = "too_many_events"
        elif payment is not None and payment.facts[event.event_id] is event:
            outcome = "folded"
        else:
            outcome = "event_id_reused" if event.event_id in reused else "known"
        yield (
            record,
            {
                "ledger.event.id": event.event_id,
                "ledger.payment.id": payment_id,
                "ledger.outcome": outcome,
            },
        )


def _report(metrics: WorkerMetrics, reused: Sequence[Event], aside: Sequence[Event]) -> None:
    metrics.reused.inc(len(reused))
    if aside:
        metrics.rejected.labels(str(Reason.TOO_MANY_EVENTS)).inc(len(aside))
    for outcome, events in (("event_id_reused", reused), ("too_many_events", aside)):
        for event in events:
            log.warning(
                outcome,
                event_id=event.event_id,
                payment_id=event.payment_id,
                partition=event.partition,
                offset=event.offset,
            )
