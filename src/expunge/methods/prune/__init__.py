"""PRUNE: a minimal patch a record, with a guarantee that a third party can check."""
