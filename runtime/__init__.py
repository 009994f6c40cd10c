"""What every program needs around the ledger: settings, Kafka connection, topics, logs, problems."""
