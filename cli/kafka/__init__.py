"""Runs Apache Kafka on loopback: for development, the demo, tests and measurements.

Start with ``broker`` (one broker), then read ``cluster`` (three brokers that replicate each other).
``distribution`` fetches Kafka once, ``properties`` writes a broker's settings, ``process`` starts
it, and ``question`` asks it about its cluster.
"""
