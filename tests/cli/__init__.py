"""Tests of the commands; these tests need no Kafka."""
