"""Read and write the topics of a ledger without a consumer group, and wait for its workers."""
