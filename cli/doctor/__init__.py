"""`plexy-ledger doctor` checks whether this machine, with these settings, can run the ledger.

    checks.py       the types of a check's input and results
    settings.py     the environment: each program's settings, unknown variables, secrets
    versions.py     Python and the libraries that the ledger is pinned to
    kafka.py        the brokers: do they answer, are there enough
    clock.py        the brokers' clock: does it agree with this machine's clock
    topics.py       the topics and their replicas
    folders.py      the worker's folder: is it writable, has the disk room, which worker uses it
    ports.py        the ports: are they free, and if not, which process listens on them
    command.py      runs all checks and prints their results

A check is a function that yields results and changes nothing.
"""
