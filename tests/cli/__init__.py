"""Tests of the commands, without Kafka."""
