"""Modules that carry an edit: heads with gates or without rows, and patches on linear regions."""
