"""An Apache Kafka of our own, on loopback: for development, the demo, tests and measurements.

A newcomer reads ``broker`` (one broker), then ``cluster`` (three that replicate each other). What
they run is fetched once by ``distribution``; ``properties`` is what a broker is told, ``process``
how it is started, ``question`` what it is asked.
"""
