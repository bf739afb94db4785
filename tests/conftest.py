"""How Hypothesis runs every property test."""

from hypothesis import HealthCheck, settings

# A busy machine is no fault: nothing fails by the clock. Examples share a fixture, which is a folder or fixed data.
settings.register_profile(
    "edgetl",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("edgetl")
