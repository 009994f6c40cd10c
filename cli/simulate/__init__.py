"""A virtual Plexy: it delivers the events of virtual shops, and predicts the resulting orders.

``stories``      the events of the shops, drawn from a seed
``schedule``     the order of the first attempts, with duplicates and clock errors
``delivery``     one attempt over HTTP
``simulation``   all attempts, until each event is acknowledged
``oracle``       the expected orders: a plain sum, written independently of ``ledger``
``check``        compares every order with the oracle, over HTTP
``report``       the deliveries that were sent, acknowledged and refused, and the checked orders
``command``      the command ``simulate``

The seed and the number of events decide every delivery. Answers decide only the retries.
"""
