"""Measuring: accuracy, latency, power and energy, with intervals and the state of the machine."""
