"""Measures ingress next to its peers: `python -m bench.ingest`, or `make bench-ingest`.

``deliveries.lua``  generates the deliveries that `wrk` sends
``load``            runs `wrk`, and reads the result
``servers``         defines the programs that are measured, and their table
``empty``, ``plain``, ``go_handler``  are the handlers of the peers
``run``             performs one measured run, and then checks the log
``report``          prints the table, and computes the ingest half of ``build/bench.json``
"""
