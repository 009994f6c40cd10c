"""Tests of the ledger's web page in a real browser, with a real worker, ingress and Kafka."""
