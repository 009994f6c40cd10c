"""Contains the measured programs, one module each, and their sources; see ``table``."""
