"""Own what every test shares: event loop hygiene and Hypothesis profiles."""

import asyncio
import os

from hypothesis import HealthCheck, settings

# pytest-asyncio 1.5 on Python 3.11 leaks a loop when a plain test precedes an async one, and warnings are errors here.
asyncio.set_event_loop(None)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
