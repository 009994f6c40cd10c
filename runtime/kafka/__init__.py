"""The Kafka client that every program shares: connections, topics, batches and readings."""
