package peer;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Folds the facts of each payment; forwards entries by entry id, and snapshots by order. */
final class FoldPayments implements Processor<String, Rules.Event, String, Object> {
    static final String STORE = "payments";

    private ProcessorContext<String, Object> context;
    private KeyValueStore<String, Rules.Payment> payments;

    @Override
    public void init(ProcessorContext<String, Object> context) {
        this.context = context;
        payments = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, Rules.Event> record) {
        String paymentId = record.key();
        Rules.Event event = record.value();
        Rules.Payment held = payments.get(paymentId);
        Rules.Payment payment = held == null ? Rules.Payment.empty() : held;
        if (payment.facts().containsKey(event.eventId())) {
            return;
        }
        String before = held == null ? null : Rules.orderOf(paymentId, payment);
        payment.facts().put(event.eventId(), event);
        Rules.Entry entry = Rules.journalEntry(paymentId, payment, event);
        if (entry != null) {
            payment.posted().add(entry.entryId());
            context.forward(record.withKey(entry.entryId()).withValue(entry), App.ENTRIES);
        }
        String after = Rules.orderOf(paymentId, payment);
        Rules.Snapshot snapshot = Rules.describe(paymentId, payment);
        if (before != null && !before.equals(after)) {
            Rules.Snapshot moved = Rules.withdrawn(paymentId, snapshot.version());
            context.forward(record.withKey(before).withValue(moved), App.SNAPSHOTS);
        }
        context.forward(record.withKey(after).withValue(snapshot), App.SNAPSHOTS);
        payments.put(paymentId, payment);
    }
}
