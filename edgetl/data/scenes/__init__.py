"""Road scenes drawn from a seed: one object in each, or many."""
