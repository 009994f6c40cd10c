"""Contains what all programs share: settings, the Kafka client, logs, traces, error answers."""
