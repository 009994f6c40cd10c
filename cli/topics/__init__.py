"""Reads and writes a ledger's topics, joins no consumer group, and waits for the workers."""
