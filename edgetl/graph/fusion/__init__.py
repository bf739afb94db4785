"""Fusing graphs that share layers: which nodes are the same, where sharing ends, and a check of the outputs."""
