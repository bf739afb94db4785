"""Build and run engines: one module per runtime behind one Protocol."""
