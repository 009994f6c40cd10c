"""Contains the programs' shared parts: settings, the Kafka client, logs, traces, error answers."""
