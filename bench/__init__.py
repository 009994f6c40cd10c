"""Side-by-side measurements against peers, in one run: `python -m bench`, or `make bench`.

``recording``     the input: deliveries that Plexy could have sent, drawn from a seed
``stage``         a run's own topics on the broker: loaded, watched, read, deleted
``program``       the interface of every program that is measured
``peers``         the programs, one module each, and their table
``builds``        builds a peer at its first use
``fold``          one measured run, and its expected result
``report``        the table on the terminal
``results``       writes one half of ``build/bench.json``
``ingest``        the same for ingress: `python -m bench.ingest`
``profile``       profiles a worker with py-spy
``latency``       `make bench-latency`: the times from a POST to its answer and to the view; its
                  tables are in ``latency_report``
``open_load``     the load for ``latency``: sends each delivery when it is due, with ``keep_alive``
``scale``         `make bench-scale`: a worker as its state grows (``growth``), and several workers
                  (``together``), both with a ``burst`` as input; its tables are in ``scale_report``
"""
