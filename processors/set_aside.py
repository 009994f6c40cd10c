"""Sets aside records that can't be folded: publishes them to ``plexy.rejected``, and reports them.

Input: a chunk's rejections. Output: a record for each rejection, which is written together with the
chunk's other outputs. Once all outputs are written, each rejection is counted, and is logged as a
warning. Facts that exceed a payment's size limit do not pass through this module: the agent
``payments`` sets these facts aside itself.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import structlog

from ledger.deduplication import Rejected
from ledger.rejected import rejected_record
from processors.engine.chunk import Chunk, Headers
from processors.engine.effects import Effects
from processors.metrics import WorkerMetrics
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord

log = structlog.get_logger(__name__)


def set_aside(app: LedgerApp, chunk: Chunk, rejected: Sequence[Rejected], effects: Effects) -> None:
    """Publish a chunk's rejections; once the rejections are written, log and count them."""
    if not rejected:
        return
    topic = str(chunk.tp.topic)
    passed_on = {record.offset: record.passed_on for record in chunk.traced}
    effects.publish(
        app.names.rejected,
        (_record(topic, each, passed_on.get(each.record.offset, ())) for each in rejected),
    )
    effects.then(partial(_report, app.metrics, topic, rejected))


def _record(topic: str, item: Rejected, passed_on: Headers) -> OutRecord:
    source = (topic, item.record.partition, item.record.offset)
    body = item.record.value or b""
    key, value, headers = rejected_record(body, item.rejection, item.event_id, source)
    return OutRecord(key, value, [*headers, *passed_on])


def _report(metrics: WorkerMetrics, topic: str, rejected: Sequence[Rejected]) -> None:
    metrics.set_aside(Counter(str(item.rejection.reason) for item in rejected))
    for item in rejected:
        log.warning(
            "rejected",
            event_id=item.event_id,
            reason=item.rejection.reason,
            field=item.rejection.field,
            topic=topic,
            partition=item.record.partition,
            offset=item.record.offset,
        )
