"""The parts that every program needs around the ledger: settings, Kafka, logs, problems."""
