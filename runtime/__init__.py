"""What every program needs around the ledger: settings, Kafka, topics, logs, problems."""
