"""The commands: arguments, settings, errors, and the parts that need no Kafka."""
