"""Shows whether a ledger's programs are ready, and how far the workers have folded the log."""
