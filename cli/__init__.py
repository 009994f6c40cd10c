"""The commands of ``plexy-ledger``, the embedded Kafka and the demo's sample."""
