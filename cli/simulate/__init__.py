"""A virtual Plexy: it sends what shops would cause, as Plexy delivers it, and knows what must come.

``stories``      what happened at the shops: events, drawn from a seed
``schedule``     in which order they are first sent, which of them twice, and with which clock
``delivery``     one attempt over HTTP
``simulation``   all attempts, until each event is acknowledged
``oracle``       what must come of it: a plain sum, written independently of ``ledger``
``check``        compares every order over HTTP with the oracle
``report``       what was sent, acknowledged, refused, and is still owed
``command``      the command ``simulate``

What is sent follows from the seed and the number of events alone; answers only decide how often.
"""
