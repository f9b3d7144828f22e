"""How a run is judged: the split of the holdout, and the outcome."""
