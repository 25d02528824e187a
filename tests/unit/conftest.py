from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is no bug: how long an example takes is asked where it matters, by CPU time. The same examples each time: a find by
# chance would be a change's that has nothing to do with it. STOKER_EXPLORE=1 looks for others.
settings.register_profile(
    "any-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="STOKER_EXPLORE" not in os.environ,
)
settings.load_profile("any-machine")
