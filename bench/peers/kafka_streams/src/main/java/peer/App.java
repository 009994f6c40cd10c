package peer;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * Runs the ledger's fold as a Kafka Streams application, as Kafka's developer guide shows.
 *
 * <p>The application reads deliveries from the log of record, and writes events, entries, snapshots
 * and order documents to the ledger's topics. The stores use RocksDB, changelogs and the default
 * cache. An offset is committed after the outputs of its record, so each record is processed at
 * least once. Sends need the acks of all in-sync replicas.
 */
public final class App {
    static final String EVENTS = "to-events";
    static final String ENTRIES = "to-entries";
    static final String SNAPSHOTS = "to-snapshots";
    static final String ORDERS = "to-orders";
    static final String REJECTED = "to-rejected";

    private static final int SUB_TOPOLOGIES = 3;
    private static final int READY = 200;
    private static final int NOT_READY = 503;
    private static final int NO_BODY = -1;

    private App() {}

    public static void main(String[] arguments) throws IOException {
        KafkaStreams streams = new KafkaStreams(topology(setting("BENCH_PREFIX")), settings());
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        serveReadiness(streams);
    }

    private static Topology topology(String prefix) {
        Topology topology = new Topology();
        Serde<Rules.Event> event = new JsonSerde<>(Rules.Event.class);
        Serde<Rules.Snapshot> snapshot = new JsonSerde<>(Rules.Snapshot.class);
        Serde<Rules.Envelope> envelope = new JsonSerde<>(Rules.Envelope.class);

        hop(topology, prefix + "plexy.webhooks", envelope, Dedupe::new,
                store(Dedupe.STORE, Rules.Seen.class));
        sink(topology, EVENTS, prefix + "ledger.events", event, Dedupe.STORE);
        sink(topology, REJECTED, prefix + "plexy.rejected", envelope, Dedupe.STORE);

        hop(topology, prefix + "ledger.events", event, FoldPayments::new,
                store(FoldPayments.STORE, Rules.Payment.class));
        sink(topology, ENTRIES, prefix + "ledger.entries", new JsonSerde<>(Rules.Entry.class),
                FoldPayments.STORE);
        sink(topology, SNAPSHOTS, prefix + "ledger.payments", snapshot, FoldPayments.STORE);

        hop(topology, prefix + "ledger.payments", snapshot, FoldOrders::new,
                store(FoldOrders.STORE, Rules.Order.class));
        sink(topology, ORDERS, prefix + "ledger.orders",
                new JsonSerde<>(Rules.OrderDocument.class), FoldOrders.STORE);
        return topology;
    }

    /** Adds a source topic and a processor, which has the same name as its store. */
    private static <V, R> void hop(
            Topology topology,
            String source,
            Serde<V> serde,
            ProcessorSupplier<String, V, String, R> processor,
            StoreBuilder<?> store) {
        topology.addSource(source, Serdes.String().deserializer(), serde.deserializer(), source);
        topology.addProcessor(store.name(), processor, source);
        topology.addStateStore(store, store.name());
    }

    private static <V> void sink(
            Topology topology, String name, String topic, Serde<V> serde, String processor) {
        topology.addSink(name, topic, Serdes.String().serializer(), serde.serializer(), processor);
    }

    private static <V> StoreBuilder<KeyValueStore<String, V>> store(String name, Class<V> type) {
        return Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore(name),
                        Serdes.String(),
                        new JsonSerde<>(type))
                .withCachingEnabled();
    }

    private static Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, setting("BENCH_APP_ID"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, setting("BENCH_BOOTSTRAP"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, setting("BENCH_FOLDER"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, setting("BENCH_THREADS"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, setting("BENCH_COMMIT_MS"));
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.ACKS_CONFIG), "all");
        settings.put(
                StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG),
                setting("BENCH_BATCH_BYTES"));
        return settings;
    }

    /** Answers 200 once this process has all partitions and has restored their stores. */
    private static void serveReadiness(KafkaStreams streams) throws IOException {
        int tasks = SUB_TOPOLOGIES * Integer.parseInt(setting("BENCH_PARTITIONS"));
        int port = Integer.parseInt(setting("BENCH_WEB_PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/readyz", exchange -> {
            int active = streams.metadataForLocalThreads().stream()
                    .mapToInt(thread -> thread.activeTasks().size())
                    .sum();
            boolean ready = streams.state() == KafkaStreams.State.RUNNING && active == tasks;
            exchange.sendResponseHeaders(ready ? READY : NOT_READY, NO_BODY);
            exchange.close();
        });
        server.start();
    }

    private static String setting(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalArgumentException(name + " is not set");
        }
        return value;
    }
}
