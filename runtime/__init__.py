"""The parts that all programs share: settings, the Kafka client, logs, traces, error answers."""
