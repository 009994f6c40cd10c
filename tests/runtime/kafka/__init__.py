"""Tests of the Kafka client that every program uses."""
