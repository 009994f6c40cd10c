"""Write the log of record to a file, and bring a file back to Kafka."""
