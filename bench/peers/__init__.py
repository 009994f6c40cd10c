"""The programs that are measured, one module each, and their sources; see ``table``."""
