"""A virtual Plexy: it delivers the events of virtual shops, and predicts the resulting orders.

``stories``      the events of the shops, drawn from a seed
``schedule``     the sequence of the first attempts, with duplicates and clock errors
``delivery``     one attempt over HTTP
``simulation``   all attempts, until each event is acknowledged
``oracle``       the expected orders: a plain sum, in code that is independent of ``ledger``
``check``        compares every order with the oracle, over HTTP
``latency``      how long the attempts took
``transactions`` the Pay API's transactions in a story
``report``       the numbers of deliveries and attempts, and the result of the check
``command``      the command ``simulate``

The seed, the number of events, the rules and the dialects decide all deliveries. The answers decide
only the retries.
"""
