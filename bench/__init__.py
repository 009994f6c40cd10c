"""Side-by-side measurements against peers, in one run: `python -m bench`, or `make bench`.

``recording``     the input: deliveries that Plexy could have sent, made from a seed
``stage``         a run's own topics on the broker: loaded, watched, read, deleted
``program``       the interface of every program that is measured
``peers``         the programs, one module each, and their table
``builds``        builds a peer that the project does not ship, at its first use
``fold``          one measured run, and the result that it must have
``report``        the table on the terminal
``results``       ``build/bench.json``, half by half
``ingest``        the same for ingress: `python -m bench.ingest`
``profile``       where a worker's time goes, by py-spy
``latency``       `make bench-latency`: from a POST to its answer and to the view; its tables are
                  in ``latency_report``
``open_load``     the load for ``latency``: it sends each delivery when it is due, by ``keep_alive``
``scale``         `make bench-scale`: a worker as its state grows (``growth``), and several workers
                  (``together``), both with a ``burst`` as input; its tables are in ``scale_report``
"""
