package peer;

import com.fasterxml.jackson.core.JsonProcessingException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Forwards each event once, keyed by payment; rejects a known event id with different content. */
final class Dedupe implements Processor<String, Rules.Envelope, String, Object> {
    static final String STORE = "seen";
    private static final int DIGEST_BYTES = 16;

    private final MessageDigest sha256 = sha256();
    private ProcessorContext<String, Object> context;
    private KeyValueStore<String, Rules.Seen> seen;

    @Override
    public void init(ProcessorContext<String, Object> context) {
        this.context = context;
        seen = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, Rules.Envelope> record) {
        Rules.Envelope body = record.value();
        String digest = digest(body);
        Rules.Seen first = seen.get(record.key());
        if (first != null) {
            if (!first.digest().equals(digest)) {
                context.forward(record.withValue(body), App.REJECTED);
            }
            return;
        }
        Rules.Event event = Rules.readEvent(body);
        if (event != null) {
            context.forward(record.withKey(event.paymentId()).withValue(event), App.EVENTS);
        }
        seen.put(record.key(), new Rules.Seen(digest, body.created()));
    }

    private String digest(Rules.Envelope body) {
        try {
            byte[] content = JsonSerde.CANONICAL.writeValueAsBytes(
                    List.of(body.type(), body.created(), body.data()));
            byte[] digest = Arrays.copyOf(sha256.digest(content), DIGEST_BYTES);
            return Base64.getEncoder().encodeToString(digest);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error);
        }
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
