"""For every test: examples that are the same on every run, and no time limit on a slow machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "archipel", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("archipel")
