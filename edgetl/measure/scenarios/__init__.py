"""Deployments under a load, as calls: this room knows nothing of engines."""
