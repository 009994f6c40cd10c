"""`python -m cli` is `plexy-ledger`: how `run` and `demo` start the other programs."""

from cli.main import main

if __name__ == "__main__":
    main()
