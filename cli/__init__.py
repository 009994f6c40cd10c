"""The commands a person types; the embedded Kafka; the sample that the demo delivers."""
