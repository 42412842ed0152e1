"""FASTMETA_PROPERTY=large looks at many more examples, new ones in each run; the default repeats its own. It takes
minutes: `FASTMETA_PROPERTY=large python -m pytest tests/property -o timeout=0 -o faulthandler_timeout=0`."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("small", derandomize=True, max_examples=300, deadline=None, database=None)
settings.register_profile(
    "large",
    max_examples=20_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("FASTMETA_PROPERTY", "small"))
