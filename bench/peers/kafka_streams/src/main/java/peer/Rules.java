package peer;

import com.fasterxml.jackson.annotation.JsonFormat;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;

/**
 * The rules, as pure functions: they read an event, and fold a payment and an order.
 *
 * <p>The rules and their fields are the same as in {@code bench/peers/plain_rules.py}.
 */
final class Rules {
    private static final String SUCCEEDED = "payment.succeeded";
    private static final String FAILED = "payment.failed";
    private static final String REFUNDED = "refund.succeeded";
    private static final Set<String> FOLDED = Set.of(SUCCEEDED, FAILED, REFUNDED);
    private static final Comparator<Event> BY_TIME =
            Comparator.comparingLong(Event::created).thenComparing(Event::eventId);

    private Rules() {}

    /** A delivery's body. */
    record Envelope(String id, String type, long created, Map<String, Object> data) {}

    /** A row of the store of known event ids. */
    record Seen(String digest, long created) {}

    /** The parts of a delivery that are folded. */
    record Event(
            String eventId,
            String type,
            long created,
            String dataId,
            String paymentId,
            long amount,
            String currency,
            String order) {}

    /** A payment's state: its facts by event id, and the entries that were posted. */
    record Payment(Map<String, Event> facts, List<String> posted) {
        static Payment empty() {
            return new Payment(new LinkedHashMap<>(), new ArrayList<>());
        }
    }

    record Posting(String account, long amount, String currency) {}

    /** A balanced journal entry. */
    record Entry(
            String entryId,
            String paymentId,
            String eventId,
            long created,
            List<Posting> postings) {}

    record Refund(String refundId, long amount, String currency) {}

    @JsonFormat(shape = JsonFormat.Shape.ARRAY)
    record EventReference(String eventId, String type, long created) {}

    /** A payment as its order receives it; without events, it has moved to another order. */
    record Snapshot(
            String paymentId,
            int version,
            String status,
            Long amount,
            String currency,
            List<Refund> refunds,
            List<EventReference> events) {}

    /** An order's state: the latest snapshot of each of its payments. */
    record Order(Map<String, Snapshot> payments) {
        static Order empty() {
            return new Order(new LinkedHashMap<>());
        }
    }

    record Totals(long paid, long refunded) {
        Totals plus(long paid, long refunded) {
            return new Totals(this.paid + paid, this.refunded + refunded);
        }
    }

    record OrderDocument(
            String orderId,
            String status,
            int version,
            Map<String, Totals> totals,
            List<Snapshot> payments,
            long firstEvent,
            long lastEvent) {}

    /** Returns the event of a delivery; null if the delivery's type is not folded. */
    static Event readEvent(Envelope body) {
        if (!FOLDED.contains(body.type())) {
            return null;
        }
        Map<String, Object> data = body.data();
        String dataId = (String) data.get("id");
        String payment = (String) data.get("payment_id");
        return new Event(
                body.id(),
                body.type(),
                body.created(),
                dataId,
                payment == null ? dataId : payment,
                ((Number) data.get("amount")).longValue(),
                (String) data.get("currency"),
                orderReference(data));
    }

    private static String orderReference(Map<String, Object> data) {
        if (data.get("merchantReference") instanceof String reference) {
            return reference;
        }
        if (data.get("orderReference") instanceof String reference) {
            return reference;
        }
        return data.get("metadata") instanceof Map<?, ?> metadata
                ? (String) metadata.get("order_id")
                : null;
    }

    /** Returns the order of the earliest fact that names an order; otherwise the payment's id. */
    static String orderOf(String paymentId, Payment payment) {
        return payment.facts().values().stream()
                .filter(fact -> fact.order() != null)
                .min(BY_TIME)
                .map(Event::order)
                .orElse(paymentId);
    }

    /** Returns the entry that an event posts; null for no entry or a known entry. */
    static Entry journalEntry(String paymentId, Payment payment, Event event) {
        if (event.type().equals(FAILED)) {
            return null;
        }
        boolean paid = event.type().equals(SUCCEEDED);
        String entryId = paid
                ? "payment/" + paymentId + "/1"
                : "refund/" + paymentId + "/" + event.dataId() + "/1";
        if (payment.posted().contains(entryId)) {
            return null;
        }
        String debit = paid ? "assets:plexy" : "income:refunds";
        String credit = paid ? "income:sales" : "assets:plexy";
        return new Entry(
                entryId,
                paymentId,
                event.eventId(),
                event.created(),
                List.of(
                        new Posting(debit, event.amount(), event.currency()),
                        new Posting(credit, -event.amount(), event.currency())));
    }

    /** Returns a payment's snapshot, from its facts. */
    static Snapshot describe(String paymentId, Payment payment) {
        List<Event> facts = payment.facts().values().stream().sorted(BY_TIME).toList();
        Event success = null;
        boolean failed = false;
        Map<String, Refund> refunds = new LinkedHashMap<>();
        List<EventReference> events = new ArrayList<>(facts.size());
        for (Event fact : facts) {
            switch (fact.type()) {
                case SUCCEEDED -> success = success == null ? fact : success;
                case FAILED -> failed = true;
                default -> refunds.putIfAbsent(
                        fact.dataId(), new Refund(fact.dataId(), fact.amount(), fact.currency()));
            }
            events.add(new EventReference(fact.eventId(), fact.type(), fact.created()));
        }
        return new Snapshot(
                paymentId,
                facts.size(),
                success != null ? "succeeded" : failed ? "failed" : "unknown",
                success == null ? null : success.amount(),
                success == null ? null : success.currency(),
                List.copyOf(refunds.values()),
                events);
    }

    /** Returns the snapshot that tells an order that a payment has moved to another order. */
    static Snapshot withdrawn(String paymentId, int version) {
        return new Snapshot(paymentId, version, "unknown", null, null, List.of(), List.of());
    }

    /** Returns an order's document; null if all of its payments have moved to other orders. */
    static OrderDocument describe(String orderId, Order order) {
        List<Snapshot> held = order.payments().values().stream()
                .filter(payment -> !payment.events().isEmpty())
                .toList();
        if (held.isEmpty()) {
            return null;
        }
        Map<String, Totals> totals = new TreeMap<>();
        Totals none = new Totals(0, 0);
        int version = 0;
        long first = Long.MAX_VALUE;
        long last = Long.MIN_VALUE;
        for (Snapshot payment : held) {
            if (payment.amount() != null) {
                String currency = payment.currency();
                totals.put(
                        currency, totals.getOrDefault(currency, none).plus(payment.amount(), 0));
            }
            for (Refund refund : payment.refunds()) {
                String currency = refund.currency();
                totals.put(
                        currency, totals.getOrDefault(currency, none).plus(0, refund.amount()));
            }
            for (EventReference event : payment.events()) {
                version++;
                first = Math.min(first, event.created());
                last = Math.max(last, event.created());
            }
        }
        return new OrderDocument(
                orderId, status(held, totals), version, totals, held, first, last);
    }

    private static String status(List<Snapshot> held, Map<String, Totals> totals) {
        boolean succeeded = held.stream().anyMatch(each -> Objects.equals(each.status(), "succeeded"));
        if (totals.values().stream().anyMatch(sums -> sums.refunded() > sums.paid())) {
            return "over_refunded";
        }
        if (totals.values().stream().anyMatch(sums -> sums.refunded() > 0)) {
            boolean whole =
                    totals.values().stream().allMatch(sums -> sums.refunded() == sums.paid());
            return succeeded && whole ? "refunded" : "partially_refunded";
        }
        return succeeded ? "paid" : "failed";
    }
}
