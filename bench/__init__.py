"""Side-by-side measurements against peers, in one run: `python -m bench`, or `make bench`.

``recording``     the input: the deliveries that Plexy could have sent, from a seed
``stage``         a run's own topics on the broker: loaded, watched, read, deleted
``program``       what every program that is measured must be able to do
``peers``         the programs, one module each, and their table
``builds``        what some of them run from: built at the first use
``fold``          one measured run, and what each run's result must equal
``report``        the table on the terminal
``results``       ``build/bench.json``, half by half
``ingest``        the same for ingress: `python -m bench.ingest`
``profile``       where a worker's time goes, by py-spy
``latency``       `make bench-latency`: from a POST to its answer and to the view;
                  its ``latency_report``
``open_load``     the load for it, each delivery sent when it is due; on ``keep_alive``
``scale``         `make bench-scale`: a worker as its state grows (``growth``), and several of them
                  (``together``); a ``burst`` is their input; its ``scale_report``
"""
