"""Accuracy, latency and memory: numbers with how they were got."""
