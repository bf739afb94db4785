"""edgetl: which vision models to ship to a small device, decided by measurement."""

# A literal, not importlib.metadata: looking it up costs more than the whole of `edgetl --help`.
__version__ = "0.1.0"
