"""Measures ingress next to its peers: `python -m bench.ingest`, or `make bench-ingest`.

``deliveries.lua``  the deliveries that `wrk` sends, each signed and with its own event id
``load``            runs `wrk`, and reads its result
``servers``         the programs that are measured, and their table
``empty``, ``plain``, ``go_handler``  the handlers of the peers
``run``             one measured run, and the check of the log after it
``report``          the table on the terminal, and the ingest half of ``build/bench.json``
"""
