"""`plexy-ledger doctor`: whether this machine, with these settings, can run the ledger.

    findings.py     what a check says, and what it looks at
    settings.py     the environment: each program's settings, what nobody reads, secrets
    versions.py     Python and the libraries that the ledger is pinned to
    kafka.py        the brokers: do they answer, are there enough, what time is it there (clock.py)
    topics.py       the topics, and their replicas
    folders.py      the worker's folder: may it write, is there room, whose is it
    ports.py        the ports: are they free, else who has them
    command.py      all of them, one after the other, and what they found

A check is a function that yields findings; nothing of what it does is a change.
"""
