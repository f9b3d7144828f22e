"""Edits of the class prototypes, the rows of the final linear layer."""
