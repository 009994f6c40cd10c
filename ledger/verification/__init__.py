"""Pure functions that check and explain the ledger's state, given the log of record.

``truth``            the state that the log produces, folded with the ledger's rules
``audit``            each value of a table or topic, judged by the truth
``journal_audit``    each journal entry and each balance, judged by the truth
``gathered_orders``  the rows of a large order, gathered so that the order can be judged
``comparison``       two versions of a ledger, value by value
``replicas``         the workers' disks, compared with the changelogs
``differences``      the kinds of difference that the checks find
``fields``           the fields in which two values differ
``history``          the outcome of each delivery, and the state of an order at any time
``proof``            one file that lets anybody check an order
"""
