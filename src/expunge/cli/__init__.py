"""The command line: one file per command; files with an underscore hold what commands share."""
