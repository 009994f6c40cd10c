"""The documentation site: with this code, `make docs` adds pages and tables to those in docs/."""
