"""Scenarios: deployments measured under a load. A deployment is a call here; engines are not known."""
