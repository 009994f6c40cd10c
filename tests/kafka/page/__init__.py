"""Tests of the page in a real browser, with a real worker, ingress and Kafka."""
