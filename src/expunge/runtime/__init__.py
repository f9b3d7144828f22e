"""What surrounds a run: randomness that is put back, and the machine."""
