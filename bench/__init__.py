"""Side-by-side measurements against peers, in one run: `python -m bench`, or `make bench`.

``recording``     the input: the deliveries that Plexy could have sent, from a seed
``stage``         a run's own topics on the broker: loaded, watched, read, deleted
``peers``         the programs that are measured, one module each, and their table
``fold``          one measured run, and what each run's result must equal
``report``        the table on the terminal, and the fold's half of ``build/bench.json``
``results``       that file, of which ``ingest`` writes the other half
``ingest``        the same for ingress: `python -m bench.ingest`
``profile``       where a worker's time goes, by py-spy
"""
