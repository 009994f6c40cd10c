"""Ingress beside its peers, in one run: `python -m bench.ingest`, or `make bench-ingest`.

``deliveries.lua``  what `wrk` sends: signed deliveries, each with an event id of its own
``load``            `wrk`, started and read
``servers``         the programs that are measured, and their table
``empty``, ``plain``, ``go_handler``  those of the peers
``run``             one measured run, and what the log must hold after it
``report``          the table on the terminal, and the ingest half of ``build/bench.json``
"""
