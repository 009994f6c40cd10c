"""Reads and writes the topics of a ledger without a consumer group, and waits for its workers."""
