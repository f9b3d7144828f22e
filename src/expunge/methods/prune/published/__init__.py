"""PRUNE as published: patches on the linear regions of ReLU networks."""
