"""Graphs that share layers, made one: which nodes are the same, where sharing ends, and that nothing changed."""
