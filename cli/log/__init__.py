"""Writes the log of record to a file, and restores it from the file."""
