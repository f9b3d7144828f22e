"""Stored bytes: files and folders written whole or not at all, TOML. No torch here."""
