"""Start the programs of a ledger on this machine, supervise them, and stop them."""
