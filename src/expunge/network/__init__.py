"""Somebody's module: run it, find its head, digest its state, read and write its weights."""
