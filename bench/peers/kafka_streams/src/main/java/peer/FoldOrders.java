package peer;

import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Folds the payments of each order, and forwards the order's document. */
final class FoldOrders implements Processor<String, Rules.Snapshot, String, Rules.OrderDocument> {
    static final String STORE = "orders";

    private ProcessorContext<String, Rules.OrderDocument> context;
    private KeyValueStore<String, Rules.Order> orders;

    @Override
    public void init(ProcessorContext<String, Rules.OrderDocument> context) {
        this.context = context;
        orders = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, Rules.Snapshot> record) {
        String orderId = record.key();
        Rules.Snapshot snapshot = record.value();
        Rules.Order stored = orders.get(orderId);
        Rules.Order order = stored == null ? Rules.Order.empty() : stored;
        Rules.Snapshot held = order.payments().get(snapshot.paymentId());
        if (held != null && held.version() >= snapshot.version()) {
            return;
        }
        order.payments().put(snapshot.paymentId(), snapshot);
        context.forward(record.withValue(Rules.describe(orderId, order)), App.ORDERS);
        orders.put(orderId, order);
    }
}
