"""The Kafka client: one room for what every program does with topics, records and connections."""
