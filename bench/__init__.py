"""Measures the ledger side by side with its peers: `python -m bench`, or `make bench`.

``recording``     generates the input: deliveries that Plexy could have sent
``stage``         creates, loads, watches, reads and deletes the topics of one run
``program``       defines the interface of every program that is measured
``peers``         contains the programs, one module each, and their table
``builds``        builds a peer when the benchmark first uses it
``fold``          performs one measured run, and computes its expected result
``report``        prints the results as a table
``results``       writes one half of ``build/bench.json``
``ingest``        measures ingress next to its peers: `python -m bench.ingest`
``profile``       profiles a worker or ingress with py-spy
``latency``       measures the time from a POST to its answer, and the time until the view shows
                  the event: `make bench-latency`; ``latency_report`` prints the table
``open_load``     sends the load for ``latency``, with the HTTP client ``keep_alive``
``scale``         measures a worker as its state grows (``growth``), and several workers
                  (``together``), with a ``burst`` as input: `make bench-scale`;
                  ``scale_report`` prints the tables
"""
