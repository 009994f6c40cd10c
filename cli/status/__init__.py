"""Show the programs of a ledger, and how far the workers are."""
