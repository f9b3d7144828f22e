"""The command line: one file per command, on the public API."""
