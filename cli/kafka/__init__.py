"""Runs Apache Kafka on loopback: for development, the demo, tests and measurements.

Start with ``broker`` (one broker), then read ``cluster`` (three brokers that replicate each other).
``distribution`` fetches Kafka if the cache does not have it. ``properties`` writes a broker's
settings, ``process`` starts a broker, and ``question`` asks a broker about the broker's cluster.
"""
