"""For every test: examples that are the same on every run, and no time limit on a slow machine."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Bare `pytest` puts tests/ on the path alone, where tests/strategies would hide strategies/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

settings.register_profile(
    "archipel", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("archipel")
